"""The hosts and the two controllers that a script is carried out on."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos import faults, invariants
from chaos.broken import Broken
from chaos.script import HOSTS, SMALL, Fault, Script, Step
from chaos.watch import Watch
from tests.e2e.fleet import Fleet, Host
from tests.e2e.machines import Machine
from tests.e2e.program import Program, Site, install_script_agent
from tests.e2e.test_faults import boundaries

APPLIES = 8  # after the faults have stopped; more is not "a bounded number"
_LONGEST = 100.0  # seconds that an apply may take
FLEET = 'lease = "5s"\nmax_stop = "100%"\n'


class Arena:
    """Three hosts with the script agent. Make it in the main thread of a process, and close it."""

    def __init__(self, *, namespaces: bool | None = None) -> None:
        self.fleet = Fleet(namespaces=namespaces)
        for name in HOSTS:
            size = "48m" if name == SMALL and self.fleet.namespaces else None
            install_script_agent(self.fleet.host(name, home_size=size))

    def close(self) -> None:
        """Nothing is left of it."""
        self.fleet.close()

    def tidy(self) -> None:
        """As before the first script: no agent runs, nothing of it is on the hosts."""
        for host in self.fleet.hosts.values():
            host.reboot()
            for name in (".local", ".script-agent", ".claude"):
                shutil.rmtree(host.home / name, ignore_errors=True)


class Neighbour(Program):
    """A controller with a state of its own on this very machine, where it can have no name of its own."""

    def __init__(self, fleet: Fleet, name: str, number: int) -> None:
        super().__init__(fleet, f"{name}-{number}")
        self.name = name
        self.env = {"XDG_STATE_HOME": str(self.directory / "state"), "XDG_DATA_HOME": str(self.directory / "data")}

    @property
    def journal(self) -> Path:
        """The journal of this fleet here."""
        return self.directory / "state/reconciler" / self.name / "controller/journal.sqlite"


class Trial:
    """One script being carried out in an arena."""

    def __init__(self, arena: Arena, script: Script) -> None:
        self.script = script
        self.fleet = arena.fleet
        self.name = f"c{script.seed % 100_000}-{secrets.token_hex(2)}"
        self.needle = f"needle-{secrets.token_hex(12)}"
        self.sites = {name: Site(host, self.name) for name, host in self.fleet.hosts.items()}
        self.controllers = self._controllers()
        self.said: list[str] = []
        self.broken: list[Broken] = []
        self.injected = 0
        self.applies = 0
        self._wounds: dict[Fault, Callable[[], object]] = {}
        self._away: dict[str, dict[str, bytes]] = {}

    def _controllers(self) -> list[Program]:
        if self.fleet.namespaces:
            found: list[Program] = [Machine(self.fleet, self.name, hostname) for hostname in ("desk", "lap")]
        else:
            found = [Neighbour(self.fleet, self.name, number) for number in range(2)]
        for program in found:
            program.env["CHAOS_NEEDLE"] = self.needle
        return found

    @property
    def _homes(self) -> list[Path]:
        return [program.home if isinstance(program, Machine) else program.directory for program in self.controllers]

    def run(self) -> None:
        """All steps, then peace, then the checks. What was found is in `broken`."""
        with Watch(list(self.sites.values()), self.needle) as watch:
            try:
                for step in self.script.steps:
                    self._step(step)
                self._peace()
            finally:
                for fault in list(self._wounds):
                    self._heal(fault)
        self.broken += watch.broken
        stores = [site.host.home for site in self.sites.values()]
        self.broken += invariants.alone(self.sites.values())
        self.broken += invariants.kept(watch.lines, [*stores, *self._homes])
        for site in self.sites.values():
            if (site.state / "fence").exists():
                self.broken += invariants.refuses(site, self.name)
        self.broken += invariants.secret(self.needle, [*stores, *self._homes], self.said)
        for text in self.said:
            self.broken += invariants.planned(text)

    # -- one step ------------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        for program in self.controllers:
            program.write(step.text(), fleet=FLEET)
        for fault in step.faults:
            if fault.kind == "away":
                self._quiet()
                self._begin(fault)
                self._away[fault.host] = invariants.touched(self.sites[fault.host])
        before = _done(self.controllers[: step.controllers])
        processes = [p.start("apply", "--auto-approve", "--json") for p in self.controllers[: step.controllers]]
        self._timeline(step, processes, before)
        for process in processes:
            self.said.append(_ended(process, self.broken))
        for fault in step.faults:
            if fault.kind == "away" and fault in self._wounds:
                now = invariants.touched(self.sites[fault.host])
                self.broken += invariants.untouched(fault.host, self._away.pop(fault.host), now)
                self._heal(fault)

    def _timeline(self, step: Step, processes: list[subprocess.Popen[str]], before: int) -> None:
        if step.at_work:
            _until_at_work(self.controllers[: step.controllers], processes, before)
        begun = time.monotonic()
        events = [(fault.at, 0, fault) for fault in step.faults if fault.kind != "away"]
        events += [(fault.at + fault.lasts, 1, fault) for fault in step.faults if fault.kind != "away"]
        for at, end, fault in sorted(events, key=lambda event: event[:2]):
            time.sleep(max(0.0, begun + at - time.monotonic()))
            if fault.kind in faults.CONTROLLER:
                self._controller(fault, bool(end), processes[0])
            elif end:
                self._heal(fault)
            else:
                self._begin(fault)

    def _controller(self, fault: Fault, end: bool, process: subprocess.Popen[str]) -> None:
        if process.poll() is not None:
            return
        if fault.kind == "kill-controller":
            self.injected += not end
            process.kill()
        elif not end:
            self.injected += 1
            process.send_signal(signal.SIGSTOP)
        else:
            other = self.controllers[1]
            for words in (("take-over", "--yes"), ("apply", "--auto-approve", "--json")):
                done = other.run(*words, timeout=_LONGEST)
                self.said += [done.stdout, done.stderr]
            process.send_signal(signal.SIGCONT)

    def _begin(self, fault: Fault) -> None:
        if any(wound.host == fault.host for wound in self._wounds):
            return  # it is broken already
        self._wounds[fault] = faults.KINDS[fault.kind].begin(self._host(fault))
        self.injected += 1

    def _heal(self, fault: Fault) -> None:
        heal = self._wounds.pop(fault, None)
        if heal is not None:
            heal()

    def _host(self, fault: Fault) -> Host:
        return self.fleet.hosts[fault.host]

    def _quiet(self) -> None:
        """Until no operation is under way on any host."""
        end = time.monotonic() + 60
        calm = 0
        while time.monotonic() < end and calm < 3:
            calm = 0 if any(site.at_work() for site in self.sites.values()) else calm + 1
            time.sleep(0.1)

    # -- peace ---------------------------------------------------------------------------------------------------

    def _peace(self) -> None:
        self._quiet()
        specs = self.script.steps[-1].specs
        first, second = self.controllers
        for program in self.controllers:
            program.write(self.script.steps[-1].text(), fleet=FLEET)
        code, output = -1, ""
        while self.applies < APPLIES and code != 0:
            self.applies += 1
            code, output = self._apply(first)
            if code != 0:
                time.sleep(1)
        if code != 0:
            self.broken.append(Broken("I1", f"{APPLIES} applies after the last fault: exit {code}: {output[-1500:]}"))
            return
        for program in (first, second, first):
            code, output = self._apply(program)
            if code != 0 or '"planned_action"' in output:
                self.broken.append(Broken("I2", f"another apply: exit {code}: {output[-1500:]}"))
        self.broken += invariants.reached(self.sites, specs)
        for program in self.controllers:
            self.broken += invariants.settled(_history(program), program.directory.name)

    def _apply(self, program: Program) -> tuple[int, str]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            done = program.run("apply", "--auto-approve", "--json", timeout=_LONGEST)
            self.said += [done.stdout, done.stderr]
            return done.returncode, done.stdout + done.stderr
        return -1, f"it did not end within {_LONGEST:g} s"

    def keep(self, place: Path) -> None:
        """Copy what there is to look at: what was said, the script, and what is on hosts and controllers."""
        place.mkdir(parents=True, exist_ok=True)
        (place / "script.txt").write_text(f"{self.script}\n\n" + "\n".join(map(str, self.broken)), encoding="utf-8")
        (place / "said.txt").write_text("\n-- --\n".join(self.said).replace(self.needle, "NEEDLE"), encoding="utf-8")
        for name, site in self.sites.items():
            for source in (site.state, site.host.home / ".script-agent"):
                _copy(source, place / name / source.name)
        for home in self._homes:
            _copy(home, place / home.parent.name / home.name)


def _copy(source: Path, target: Path) -> None:
    def special(directory: str, names: list[str]) -> list[str]:
        return [n for n in names if not (Path(directory) / n).is_file() and not (Path(directory) / n).is_dir()]

    if source.exists():
        with contextlib.suppress(OSError, shutil.Error):
            shutil.copytree(source, target, ignore=special, dirs_exist_ok=True, symlinks=True)


def _ended(process: subprocess.Popen[str], broken: list[Broken]) -> str:
    try:
        return process.communicate(timeout=_LONGEST)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        output = process.communicate()[0]
        broken.append(Broken("I1", f"an apply did not end within {_LONGEST:g} s: {output[-1500:]}"))
        return output


def _done(programs: list[Program]) -> int:
    """How many intents and outcomes stand in the journals."""
    return sum(boundaries(program.journal) for program in programs)


def _until_at_work(programs: list[Program], processes: list[subprocess.Popen[str]], before: int) -> None:
    """Until the first intent since `before`, or until there is none to wait for."""
    while _done(programs) <= before and any(process.poll() is None for process in processes):
        time.sleep(0.01)


def _history(program: Program) -> list[dict[str, Any]]:
    done = program.run("history", "--json", "-n", "1000")
    return list(json.loads(done.stdout)["entries"])
