#!/usr/bin/env python3
"""The demonstration, on this machine alone: two hosts, four agents, a power cut, and the same conversations after it.

    python3 demo/run.py [--stay] [--work DIR]

It runs the real command line and shows each command as it is; it ends with an error when anything is not as it should
be. Nothing outside the work directory (`.demo`) is read or written, and nothing runs on when it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS = ("atlas", "borealis")
VICTIM = "atlas"
_NEEDED = """
import sys
assert sys.version_info >= (3, 11), "Python >= 3.11 is needed"
import asyncssh, reconciler.cli.apply, reconciler.cli.status, reconciler.core.parse, rich
"""
# The tmux socket of a session lies below the host's home, and a socket's path may be about 100 bytes long.
_LONGEST_HOME = 66


class Unexpected(Exception):
    """The story went another way than it should; the text says how."""


def main() -> int:
    """Set up, tell the story, take everything down again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stay", action="store_true", help="keep the hosts until Enter or Ctrl-C, to look around")
    parser.add_argument("--work", type=Path, default=ROOT / ".demo", help="work directory; what is in it is deleted")
    options = parser.parse_args()
    ensure_environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with locked(options.work.resolve()) as work, Demo(work) as demo:
            tell(demo)
            if options.stay or os.environ.get("DEMO_STAY", "0") not in ("", "0"):
                stay(demo)
        what_next(options.stay)
    except Unexpected as error:
        print(f"\nThe demo went wrong: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything it started has been ended.", file=sys.stderr)
        return 130
    return 0


# --- the story ----------------------------------------------------------------------------------------------------


def tell(demo: Demo) -> None:
    """Plan, apply, look, a power cut, and back again."""
    say(
        f"Two machines, {' and '.join(HOSTS)}, answer SSH on loopback ports. What should run on them is said in",
        f"{demo.shown}/specs: four sessions of a small scripted agent, some of which wait for others.",
        f"{demo.shown}/reconciler is the real program, with a home of its own.",
    )
    demo.run("plan", holds="Plan: 4 to start.")
    say("A plan has changed nothing yet. Make it so:")
    demo.run("apply", "--auto-approve", holds="4 done")
    counts = demo.wait_for_messages(dict.fromkeys(demo.sessions(), 2))
    say("Once more? There is nothing to do, and so nothing is done:")
    demo.run("apply", "--auto-approve", holds="No changes.")
    if demo.strategy == "tmux":
        say("The sessions are real ones. One more message for one of them:")
        demo.run("send", "api", "Paginate the list of orders.")
        counts = demo.wait_for_messages({**counts, "api": 4})
    demo.run("status", holds="api")
    before = demo.conversations()
    cut(demo)
    demo.run("plan", holds="2 to resume")
    demo.run("apply", "--auto-approve", holds="2 done")
    prove(demo, before)


def cut(demo: Demo) -> None:
    """The host loses its power and gets it back."""
    on_victim = [name for name, host in demo.sessions().items() if host == VICTIM]
    say(f"Now {VICTIM} loses its power: {' and '.join(on_victim)} die in the middle of whatever they do.")
    demo.order("power-cut", VICTIM)
    say("While it does not answer, nobody knows how its sessions are. Unknown is not gone, so nothing is done:")
    demo.run("plan", "--detailed-exitcode", holds="2 unknown", code=4)
    say(f"{VICTIM} boots. Its disk is as it was; nothing runs. This is proof, and there is something to do:")
    demo.order("boot", VICTIM)


def prove(demo: Demo, before: dict[str, tuple[str, int]]) -> None:
    """The same conversations, message for message, as the files on the hosts say."""
    after = demo.conversations()
    say("The same conversations, as the files on the hosts tell:")
    print(f"    {'session':10} {'conversation':38} before  after")
    for name, (conversation, count) in before.items():
        print(f"    {name:10} {conversation:38} {count:6}  {after[name][1]:5}")
    if after != before:
        raise Unexpected(f"the conversations are not the same: before {before}, after {after}")
    say("And the agent has it all in mind:")
    conversation, count = before["api"]
    if demo.strategy == "tmux":
        demo.run("send", "api", "Where were we?")
        demo.wait_for_messages({"api": count + 2})
    demo.run("logs", "api", holds=f"resumed conversation {conversation}, {count} messages")
    demo.run("plan", holds="No changes. The fleet matches the specs.")


def stay(demo: Demo) -> None:
    """Leave the hosts up for a while."""
    say(
        "The hosts stay up until you press Enter. In another terminal, from this directory:",
        f"    {demo.shown}/reconciler attach api          talk to it; C-b d detaches, it goes on",
        f"    {demo.shown}/reconciler status -w",
        f"    $EDITOR {demo.shown}/specs/sessions.toml    then plan and apply",
    )
    with contextlib.suppress(EOFError):
        input()


def what_next(stayed: bool) -> None:
    """Where to go from here."""
    say(
        "That was the demo; everything it started has been ended. What to try next:",
        *([] if stayed else ["    make demo DEMO_STAY=1        keep the hosts up: attach, edit the specs, apply"]),
        "    reconciler init              a first spec for machines and agents of yours",
        "    examples/                    Claude Code, Codex, order and readiness, agents of your own",
        "    docs/index.md                how it works",
    )


def say(*lines: str) -> None:
    """A caption, after a pause that lets people read what came before."""
    if sys.stdout.isatty() or "DEMO_PAUSE" in os.environ:
        time.sleep(float(os.environ.get("DEMO_PAUSE") or 1.5))
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print()
    for line in lines:
        print(f"{bold}{line}{plain}")
    sys.stdout.flush()


# --- what it is made of -------------------------------------------------------------------------------------------


class Demo:
    """The hosts, the specs that name them, and the command line with a home of its own."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.shown = os.path.relpath(work) if work.is_relative_to(Path.cwd()) else str(work)
        self.strategy = "tmux" if tmux_is_new_enough() else "process"
        self.place = work / "hosts"
        self._temporary: Path | None = None
        self._hosts: subprocess.Popen[str] | None = None

    def __enter__(self) -> Demo:
        if len(str(self.place / max(HOSTS, key=len))) > _LONGEST_HOME:
            self._temporary = self.place = Path(tempfile.mkdtemp(prefix="reconciler-demo-", dir="/tmp")).resolve()
        try:
            ports = self._start_hosts()
            self._write_specs(ports)
            self._write_command()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            if self._hosts is not None:
                # The end of its input tells it to end, with all that runs on the hosts.
                self._hosts.stdin.close()  # type: ignore[union-attr]
                try:
                    self._hosts.wait(30)
                except subprocess.TimeoutExpired:
                    self._hosts.kill()
                    self._hosts.wait()
            if self._temporary is not None:
                shutil.rmtree(self._temporary, ignore_errors=True)

    def _start_hosts(self) -> dict[str, int]:
        command = [sys.executable, "-m", "demo.hosts", str(self.place), *HOSTS]
        # In a session of its own, Ctrl-C in the terminal does not reach it.
        self._hosts = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
        )
        ports: dict[str, int] = json.loads(self._answer())
        return ports

    def _answer(self) -> str:
        assert self._hosts is not None
        assert self._hosts.stdout is not None
        line = self._hosts.stdout.readline()
        if not line:
            raise Unexpected("the hosts have ended; what they said is above")
        return line

    def order(self, what: str, host: str) -> None:
        """Tell the hosts something, and wait until it is so."""
        assert self._hosts is not None
        assert self._hosts.stdin is not None
        self._hosts.stdin.write(f"{what} {host}\n")
        self._hosts.stdin.flush()
        self._answer()

    def _write_specs(self, ports: dict[str, int]) -> None:
        """The specs of the checkout, but for the hosts: those are where they are today."""
        specs = self.work / "specs"
        shutil.copytree(ROOT / "specs", specs)
        lines = ["# Written by demo/run.py: where the hosts of this run are.\n"]
        for name, port in ports.items():
            lines += [
                f"[hosts.{name}]",
                'address = "127.0.0.1"',
                f"port = {port}",
                "ssh_config = false",
                f'auth = {{ type = "key", path = {json.dumps(str(self.place / "key"))} }}\n',
            ]
        if self.strategy == "process":
            print("There is no tmux >= 3.2 here, so the sessions run without terminals (nothing to attach or send to).")
            lines += ["[defaults.session]", 'strategy = "process"\n']
        (specs / "hosts.toml").write_text("\n".join(lines), encoding="utf-8")

    def _write_command(self) -> None:
        """`reconciler` as it is, with a home of its own and nothing else of the user's."""
        home = self.work / "controller"
        home.mkdir()
        program = self.work / "reconciler"
        kept = " ".join(f'{name}="${{{name}-}}"' for name in ("PATH", "TERM", "LANG", "USER", "NO_COLOR"))
        ours = " ".join(shlex.quote(word) for word in (f"HOME={home}", f"PYTHONPATH={ROOT}"))
        command = shlex.join([sys.executable, "-m", "reconciler", "-C", str(self.work)])
        program.write_text(f'#!/bin/sh\nexec env -i {kept} {ours} {command} "$@"\n', encoding="utf-8")
        program.chmod(0o755)

    def run(self, *args: str, holds: str = "", code: int = 0) -> None:
        """Show a command, run it, show what it prints; it has to end with `code` and print `holds`."""
        print(f"\n$ {self.shown}/reconciler {shlex.join(args)}", flush=True)
        done = subprocess.run(
            [str(self.work / "reconciler"), *args],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        print("".join(f"    {line}\n" for line in done.stdout.splitlines()), end="", flush=True)
        if done.returncode != code:
            raise Unexpected(f"`reconciler {shlex.join(args)}` ended with exit code {done.returncode}, not {code}")
        if holds not in done.stdout:
            raise Unexpected(f"`reconciler {shlex.join(args)}` did not say: {holds}")

    def sessions(self) -> dict[str, str]:
        """Each session's host, as the hosts tell."""
        found = {}
        for host in HOSTS:
            for record in sorted(self._state(host).glob("sessions/*/record.json")):
                found[record.parent.name] = host
        return found

    def _state(self, host: str) -> Path:
        return self.place / host / ".local" / "state" / "reconciler" / "demo"

    def conversations(self) -> dict[str, tuple[str, int]]:
        """Each session's conversation, and how many messages its file holds."""
        found = {}
        for name, host in self.sessions().items():
            record = json.loads((self._state(host) / "sessions" / name / "record.json").read_text(encoding="utf-8"))
            file = self.place / host / ".demo-agent" / "conversations" / f"{record['conversation']}.jsonl"
            lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            found[name] = (str(record["conversation"]), sum(1 for line in lines if "role" in json.loads(line)))
        return found

    def wait_for_messages(self, wanted: dict[str, int]) -> dict[str, int]:
        """Until the agents have answered."""
        end = time.monotonic() + 15
        while True:
            found = {name: count for name, (_, count) in self.conversations().items()}
            if all(found.get(name) == count for name, count in wanted.items()):
                return found
            if time.monotonic() > end:
                raise Unexpected(f"the conversations have {found} messages, not {wanted}")
            time.sleep(0.1)


@contextlib.contextmanager
def locked(work: Path) -> Iterator[Path]:
    """The work directory, empty, and nobody else's as long as this lasts."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Unexpected(f"another demo runs in {work}") from None
        clear(work)
        yield work


def clear(work: Path) -> None:
    """Take away what an earlier run left, its processes first."""
    sys.path.insert(0, str(ROOT))
    from demo.processes import kill_those_of

    for host in HOSTS:
        kill_those_of((work / "hosts" / host).resolve())
    for name in ("hosts", "specs", "controller"):
        shutil.rmtree(work / name, ignore_errors=True)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Nothing stops what happens here half-way."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def tmux_is_new_enough() -> bool:
    """Whether there is a tmux >= 3.2."""
    if shutil.which("tmux") is None:
        return False
    said = subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    return version is not None and (int(version[1]), int(version[2])) >= (3, 2)


# --- an environment to run in -------------------------------------------------------------------------------------


def ensure_environment() -> None:
    """Go on in an interpreter that has what reconciler needs: this one, else `.venv`, which is made when missing."""
    if suits(sys.executable):
        return
    python = ROOT / ".venv" / "bin" / "python"
    if not suits(str(python)):
        if os.environ.get("DEMO_INSTALLED"):
            subprocess.run([str(python), "-c", _NEEDED], cwd=ROOT, check=False)  # says why
            sys.exit(f"{python} does not work; remove {ROOT / '.venv'} and try again")
        install(python)
    os.environ["DEMO_INSTALLED"] = "1"
    os.execv(str(python), [str(python), *sys.argv])


def suits(python: str) -> bool:
    """Whether this interpreter is new enough and has all dependencies."""
    with contextlib.suppress(OSError):
        done = subprocess.run([python, "-c", _NEEDED], cwd=ROOT, capture_output=True, check=False)
        return done.returncode == 0
    return False


def install(python: Path) -> None:
    """A private environment in `.venv`, with what reconciler needs."""
    print("First time here: installing what it needs into .venv …", flush=True)
    venv = str(python.parents[1])
    if uv := shutil.which("uv"):
        make = [[uv, "venv", "--quiet", "--allow-existing", "--python", ">=3.11", venv]]
        make += [[uv, "pip", "install", "--quiet", "--python", str(python), "-e", str(ROOT)]]
    else:
        make = [[new_python(), "-m", "venv", venv]]
        make += [[str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", str(ROOT)]]
    for command in make:
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            sys.exit(f"this failed: {shlex.join(command)}\n(Debian, Ubuntu: apt install python3-venv)")


def new_python() -> str:
    """An interpreter that is new enough."""
    for name in (sys.executable, "python3", "python3.13", "python3.12", "python3.11"):
        found = shutil.which(name)
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        if found and subprocess.run([found, "-c", check], check=False).returncode == 0:
            return found
    sys.exit("Python >= 3.11 is needed: apt install python3, brew install python, or https://docs.astral.sh/uv/")


if __name__ == "__main__":
    sys.exit(main())
