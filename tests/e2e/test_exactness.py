"""What people write reaches the agent byte for byte, and what is secret reaches nothing else."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, Site, fleet_of, install_script_agent, until

pytestmark = pytest.mark.e2e
NASTY = (
    "-n --help 'single' \"double\" $(touch /tmp/pwned) `touch /tmp/pwned` ${HOME} $HOME \\n \\\\ %s %d * ? [a] ~ # !x\n"
    "\n  indented; && || | > <(x) \u00fc \u4e2d \U0001f701 \u202e \ufeff \u00a0 {session_id} {prompt} "
    "'\"'\"' EOF\n\ttab\n"
)
ENVIRONMENT = {
    "LINES_OF": "one\ntwo\n\nfour",
    "QUOTES": "'\"'\\''`$(x)`$y",
    "BLANK": "",
    "SPACES": "  both ends  ",
    "DASH": "-n",
    "UNICODE": "\u00fc\U0001f701\u202e",
    "TRAILING": "newline\n",
    "MARKS": ">reconciler reconciler<",
}
SECRETS = {"FROM_ENV": "s3cret-of-env-'\"$x\n2nd", "FROM_FILE": "s3cret-of-file-%s", "FROM_CMD": "s3cret-of-cmd-\\n`"}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


@pytest.fixture
def gpu(fleet: Fleet) -> Host:
    return fleet.hosts["gpu"]


@pytest.fixture
def program(fleet: Fleet, request: pytest.FixtureRequest) -> Program:
    return Program(fleet, f"exact{request.session.items.index(request.node)}")


@pytest.fixture
def site(gpu: Host, program: Program) -> Site:
    return Site(gpu, program.name)


def session(name: str, more: str = "", host: str = "gpu") -> str:
    return f'[sessions.{name}]\nhost = "{host}"\nagent = "script"\n{more}\n'


def toml(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)


def table(values: dict[str, str]) -> str:
    return "{ " + ", ".join(f"{name} = {toml(value)}" for name, value in values.items()) + " }"


def of_size(size: int) -> str:
    """Awkward text of so many bytes, no two lines alike."""
    lines, length = [NASTY], len(NASTY.encode())
    while length < size:
        lines.append(f"{len(lines)} ' \" $(x) \u00fc \\\n")
        length += len(lines[-1].encode())
    text = "".join(lines).encode()[:size].decode("utf-8", "ignore")
    return text[:-4].rstrip() + " end"


# -- prompts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["tmux", "process"])
def test_a_prompt_of_almost_100_kb_arrives_as_one_argument(program: Program, site: Site, strategy: str) -> None:
    prompt = of_size(99_900)
    program.write(session("api", f'strategy = "{strategy}"\nprompt_file = "prompt.md"'))
    (program.specs / "prompt.md").write_text(prompt, encoding="utf-8")
    program.apply()
    program.settled()
    assert site.messages("api") == [prompt]
    assert not (site.host.outside("/tmp/pwned")).exists()


def test_a_prompt_of_a_mebibyte_is_pasted_whole(program: Program, site: Site) -> None:
    prompt = of_size(1 << 20)
    program.write(
        '[agents.pasted]\ncommand = "script-agent"\nprompt_via = "paste"\n'
        'start = ["script-agent", "start", "{session_id}"]\nready_pattern = "script-agent is ready"\n'
        + session("api", 'prompt_file = "prompt.md"').replace('"script"', '"pasted"')
    )
    (program.specs / "prompt.md").write_text(prompt, encoding="utf-8")
    program.apply()
    until("the paste", lambda: site.messages("api"))
    assert site.messages("api") == [prompt]
    program.settled()
    assert not list(site.state.glob("sessions/*/message*"))


def test_a_prompt_of_a_mebibyte_reaches_a_task_on_stdin(program: Program, site: Site) -> None:
    prompt = of_size(1 << 20)
    program.write(
        '[agents.headless]\ncommand = "script-agent"\nprompt_via = "stdin"\n'
        'start = ["script-agent", "start", "{session_id}"]\nturn = ["script-agent", "turn", "{session_id}"]\n'
        + session("api", 'lifecycle = "task"\nstrategy = "process"\nprompt_file = "prompt.md"').replace(
            '"script"', '"headless"'
        )
    )
    (program.specs / "prompt.md").write_text(prompt, encoding="utf-8")
    program.apply()
    until("its end", lambda: list((site.state / "sessions/api").glob("exit.1")))
    assert site.messages("api") == [prompt]
    assert program.status()["session.api"]["phase"] == "completed"


def test_a_prompt_too_long_for_an_argument_is_a_named_error(program: Program, site: Site) -> None:
    program.write(session("api", 'prompt_file = "prompt.md"').replace('agent = "script"', 'agent = "strict"')
                  + '[agents.strict]\ncommand = "script-agent"\nprompt_via = "argv"\n'
                  'start = ["script-agent", "start", "{session_id}", "{prompt}"]\n')  # fmt: skip
    (program.specs / "prompt.md").write_text("x" * 200_000, encoding="utf-8")
    output = program.apply(code=7)
    assert "too long for an argument" in output
    assert 'prompt_via = "stdin" or "paste"' in output
    assert not (site.state / "sessions").exists()


def first_line(path: Path) -> dict[str, Any]:
    """The first entry of a file that is about to be written."""

    def read() -> str:
        return path.read_text(encoding="utf-8") if path.exists() else ""

    entry = json.loads(until("its file", read).splitlines()[0])
    assert isinstance(entry, dict)
    return entry


def test_arguments_and_environment_arrive_as_they_were_written(program: Program, site: Site) -> None:
    arguments = ["-x", "", " ", NASTY, "a'b", "*", "$HOME", "\u00fc\U0001f701"]
    words = ", ".join(toml(word) for word in ["script-agent", "start", "an-id", "", *arguments])
    more = f"args = [{words}]\nenv = {table(ENVIRONMENT)}\n"
    for name, strategy in (("term", "tmux"), ("proc", "process")):
        ours = more.replace("an-id", name) + f'strategy = "{strategy}"'
        program.write(session(name, ours).replace('"script"', '"shell"', 1))
        program.apply()
        opened = first_line(site.host.home / f".script-agent/{name}.jsonl")
        assert opened["argv"][1:] == ["start", name, "", *arguments]
        environ = site.environ(opened["pid"])
        assert {key: environ.get(key) for key in ENVIRONMENT} == ENVIRONMENT
    assert not site.host.outside("/tmp/pwned").exists()


# -- secrets ---------------------------------------------------------------------------------------------------------


class Watch(threading.Thread):
    """Reads the command lines of all processes of this machine, those in hosts too, for what must not be there."""

    def __init__(self, *needles: bytes) -> None:
        super().__init__(daemon=True)
        self.needles = needles
        self.found: list[bytes] = []
        self.rounds = 0
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self.rounds += 1
            for entry in os.listdir("/proc"):
                if entry.isdigit():
                    self._read(entry)
            time.sleep(0.002)

    def _read(self, entry: str) -> None:
        try:
            line = Path(f"/proc/{entry}/cmdline").read_bytes()
        except OSError:
            return
        if any(needle in line for needle in self.needles):
            self.found.append(line)

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def below(directory: Path, needles: tuple[bytes, ...]) -> list[Path]:
    """Files that hold one of these."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if any(needle in path.read_bytes() for needle in needles)]


@pytest.mark.parametrize("strategy", ["tmux", "process"])
def test_a_secret_is_in_the_agents_environment_and_nowhere_else(
    program: Program, site: Site, fleet: Fleet, strategy: str
) -> None:
    needles = (b"s3cret-of-",)
    secret_file = fleet.root / "secret-file"
    secret_file.write_text(SECRETS["FROM_FILE"] + "\n", encoding="utf-8")
    command = fleet.root / "secret-command"
    command.write_text(f"cat <<'END'\n{SECRETS['FROM_CMD']}\nEND\n", encoding="utf-8")
    program.env = {"OUR_KEY": SECRETS["FROM_ENV"]}
    references = {
        "FROM_ENV": "${env:OUR_KEY}", "FROM_FILE": f"${{file:{secret_file}}}", "FROM_CMD": f"${{cmd:sh {command}}}",
    }  # fmt: skip
    more = f'strategy = "{strategy}"\nprompt = "MARK-one"\nenv = {table(references)}\n'
    program.write(session("other", f'strategy = "{strategy}"') + session("api", more))
    with Watch(*needles) as watch:
        program.apply()
        printed = [program.run(*words) for words in (("plan", "--json", "--restart", "api"), ("why", "api"),
                   ("status", "--json"), ("logs", "api"), ("history", "--json"))]  # fmt: skip
        program.apply("--restart", "api")
    assert watch.rounds > 20
    assert watch.found == []
    assert not any("s3cret-of-" in done.stdout + done.stderr for done in printed)
    environ = site.environ(site.pids("api")[0])
    assert {name: environ[name] for name in SECRETS} == SECRETS
    assert "FROM_ENV" not in site.environ(site.pids("other")[0])
    if strategy == "tmux":
        assert "s3cret-of-" not in site.tmux("show-environment", "-g") + site.tmux("show-environment", "-t", "=api")
    assert below(site.host.home, needles) == []
    assert below(fleet.controller_home, needles) == []
    assert below(site.host.outside("/tmp"), needles) == []
    program.write(session("api", 'state = "stopped"') + session("other", 'state = "stopped"'))
    program.apply()
    assert below(site.host.home, needles) == []


def test_a_secret_that_cannot_be_resolved_is_named_and_nothing_is_started(program: Program, site: Site) -> None:
    program.write(session("api", 'env = { KEY = "${env:NOT_SET_ANYWHERE}" }'))
    output = program.apply(code=1)
    assert "${env:NOT_SET_ANYWHERE}: it is not set" in output
    assert "remedy: set it where reconciler runs" in output
    assert not (site.state / "sessions/api/record.json").exists()


# -- names, logins ---------------------------------------------------------------------------------------------------


def test_sessions_whose_names_begin_alike_are_told_apart(program: Program, site: Site) -> None:
    names = ("a", "ab", "a-b", "a_b", "abc")
    program.write("".join(session(name) for name in names))
    program.apply()
    before = {name: site.pids(name) for name in names}
    assert all(len(pids) == 1 for pids in before.values())
    program.run("send", "a", "for a alone")
    until("the message", lambda: site.messages("a"))
    program.write(session("a", 'state = "stopped"') + "".join(session(name) for name in names[1:]))
    program.apply()
    program.settled()
    assert site.pids("a") == []
    assert {name: site.pids(name) for name in names[1:]} == {name: before[name] for name in names[1:]}
    assert [site.messages(name) for name in names] == [["for a alone"], [], [], [], []]
    assert sorted(site.tmux("list-sessions", "-F", "#{session_name}").split()) == sorted(names[1:])


@pytest.mark.parametrize("strategy", ["tmux", "process"])
def test_umask_path_and_environment_of_a_login_reach_the_agent(program: Program, site: Site, strategy: str) -> None:
    site.host.write("~/.profile", 'umask 027\nPATH="$HOME/bin:/opt/mine:$PATH"\nexport OF_LOGIN="it is\nhere"\n')
    try:
        program.write(session("api", f'strategy = "{strategy}"'))
        program.apply()
        opened = site.conversation("api")[0]
        assert opened["path"].split(":")[:2] == [f"{site.host.inner_home}/bin", "/opt/mine"]
        assert site.environ(opened["pid"])["OF_LOGIN"] == "it is\nhere"
        assert opened["umask"] == "027"
    finally:
        install_script_agent(site.host)


def test_an_agent_that_only_interactive_shells_find_is_found(program: Program, site: Site) -> None:
    site.host.write("~/.profile", '[ -n "$BASH_VERSION" ] && . ~/.bashrc\n')
    interactive_only = 'case $- in *i*) ;; *) return ;; esac\nPATH="$HOME/bin:$PATH"\necho "Welcome!"\n'
    site.host.write("~/.bashrc", interactive_only)
    try:
        for strategy in ("tmux", "process"):
            program.write(session(strategy, f'strategy = "{strategy}"'))
            program.apply("--max-stop", "9")
            assert len(site.pids(strategy)) == 1
    finally:
        site.host.write("~/.bashrc", "")
        install_script_agent(site.host)


NOISE = 'echo "Welcome!"; printf "\\033[1mno newline"; echo >&2 "and on stderr"\n'
SHELLS = {
    "bash": ("/bin/bash", ".profile"),
    "zsh": ("/usr/bin/zsh", ".zprofile"),
    "dash": ("/bin/dash", ".profile"),
    "mksh": ("/bin/mksh", ".profile"),
    "ash": ("/home/dev/ash", ".profile"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_sessions_start_and_stop_under_every_login_shell_and_a_talkative_profile(
    fleet: Fleet, program: Program, shell: str
) -> None:
    path, profile = SHELLS[shell]
    program_file = Path("/bin/busybox" if shell == "ash" else path)
    assert program_file.exists(), f"{program_file.name} is missing: apt-get install {program_file.name}"
    host = fleet.host(shell, shell=path, boot=False)
    (host.home / "ash").symlink_to("/bin/busybox")
    host.boot()
    try:
        install_script_agent(host)
        (host.home / ".profile").unlink()
        host.write(f"~/{profile}", f'PATH="$HOME/bin:$PATH"\n{NOISE}')
        site = Site(host, program.name)
        keys = 'env = { WORD = "it\'s" }\nprompt = "MARK-one"\n'
        specs = session("term", keys, shell) + session("proc", keys + 'strategy = "process"\n', shell)
        program.write(specs)
        program.apply()
        program.settled()
        for name in ("term", "proc"):
            assert site.messages(name) == ["MARK-one"]
            assert site.environ(site.pids(name)[0])["WORD"] == "it's"
            assert site.conversation(name)[0]["path"].startswith(f"{host.inner_home}/bin:")
        program.write(specs.replace("prompt", 'state = "stopped"\nprompt'))
        program.apply()
        assert not [argv for _, argv in host.processes() if "script-agent" in " ".join(argv)]
    finally:
        host.remove()
        del fleet.hosts[shell]
