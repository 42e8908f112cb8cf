"""G7: `reconciler plan` as a whole process, over `xargs ssh` for the same data and over bare asyncssh with one look.

Round trips are the slope between two delays of the first look at one host: TCP, SSH, the shell, the look.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Callable

from benchmarks import farm, noop
from benchmarks.figure import Figure, Sample, Work, against, alternately, python, sampled_process
from benchmarks.peers import program
from reconciler import drivers
from reconciler.core.launching import checks_of
from reconciler.core.observed import Reached
from reconciler.hosts import Hosts
from reconciler.observe import look

HOSTS, FEW = 100, 20
NEAR, FAR = 0.05, 0.15

# The floor: nothing but asyncssh and the very look that the program sends, at once to every host.
BARE = """
import asyncio, sys
import asyncssh
script = open(sys.argv[1]).read()
async def one(name):
    async with asyncssh.connect(name, config=[sys.argv[2]], known_hosts=sys.argv[3]) as connection:
        done = await connection.run("sh", input=script, check=True)
        assert "end\\tn\\t" in done.stdout, done.stdout
async def main():
    await asyncio.gather(*(one(name) for name in sys.argv[4:]))
asyncio.run(main())
"""


def worker(place: farm.Farm, once: Callable[[], Sample]) -> Work:
    """A process as a work, with the CPU of the hosts meanwhile."""

    async def work() -> Sample:
        before = place.line.cpu()
        sample = await asyncio.to_thread(once)
        after = place.line.cpu()
        return Sample(sample.wall, sample.client, after - before if after is not None and before is not None else None)

    return work


def plan(place: farm.Farm, hosts: int) -> Work:
    """`reconciler plan`, which has to find nothing to do."""
    folder = place.folder(hosts)
    return worker(place, lambda: sampled_process(python("-m", "reconciler", "plan"), place.env, folder))


def xargs(place: farm.Farm, hosts: int) -> Work:
    """`xargs -P50 ssh`, a connection for each; with curve25519, since its default exchange costs six times more."""
    kex = ("-o", "KexAlgorithms=curve25519-sha256")
    names = " ".join(f"h{number}" for number in range(hosts))
    argv = [program("ssh"), "-F", str(place.ssh_config), *kex, "{}", farm.look_like_ours()]
    script = f'for name in {names}; do echo $name; done | xargs -P50 -I{{}} "$@" >/dev/null'
    return worker(place, lambda: sampled_process(["sh", "-c", script, "sh", *argv], place.env))


def bare(place: farm.Farm, hosts: int) -> Work:
    """The floor above."""
    from reconciler.runtimes.operations import look_call, look_definition

    script = place.root / "look.sh"
    script.write_text(look_definition() + look_call("bench", "n", [("command", "sleep")]), encoding="utf-8")
    names = [f"h{number}" for number in range(hosts)]
    known = str(place.controller / ".ssh/known_hosts")
    argv = python("-c", BARE, str(script), str(place.ssh_config), known, *names)
    return worker(place, lambda: sampled_process(argv, place.env))


def server() -> str:
    """Which sshd it is."""
    done = subprocess.run([program("ssh"), "-V"], capture_output=True, text=True, check=False)
    return done.stderr.partition(",")[0].strip()


def measure(full: bool = False) -> list[Figure]:
    """Four figures: wall and CPU over xargs, round trips, wall over bare asyncssh."""
    return asyncio.run(_measure(noop.LARGE if full else HOSTS))


async def _measure(hosts: int) -> list[Figure]:
    place = farm.shared(hosts)
    with noop.delayed(place.line, NEAR):
        ours, theirs = await alternately((plan(place, hosts), xargs(place, hosts)), runs=3)
    few, floor = await alternately((plan(place, FEW), bare(place, FEW)), runs=5)
    note = f"{hosts} hosts x {farm.SESSIONS} sessions, {NEAR * 1000:g} ms, curve25519."
    return [
        against("cold plan over xargs ssh", ours, theirs, 0.8, note, target="G7"),
        against(
            "client CPU of a cold plan over xargs ssh", ours, theirs, 0.35, note, target="G7",
            what=lambda sample: sample.client,
        ),
        await _trips(place),
        against("cold plan over bare asyncssh and the same look", few, floor, 1.3, f"{FEW} hosts, no delay."),
    ]  # fmt: skip


async def _trips(place: farm.Farm) -> Figure:
    """The least of several runs each: what is over it is the machine's. In this process: a start has no round trips."""
    desired = place.desired(1)
    checks = checks_of(desired, drivers.agents(desired))["h0"]
    walls: dict[float, list[float]] = {NEAR: [], FAR: []}
    for _ in range(8):
        for trip, found in walls.items():
            with noop.delayed(place.line, trip):
                begun = time.perf_counter()
                async with Hosts() as hosts:
                    seen = await look(hosts.connection("h0", desired.hosts["h0"]), desired.fleet.name, checks)
                    found.append(time.perf_counter() - begun)
                if not isinstance(seen, Reached):
                    raise RuntimeError(f"h0 did not answer: {seen.message}")
    near, far = (min(found) for found in walls.values())
    note = f"{server()}; slope from {near * 1000:.0f} ms at {NEAR * 1000:g} to {far * 1000:.0f} at {FAR * 1000:g} ms."
    name = "round trips from nothing to the end of the first look"
    return Figure(name, (far - near) / (FAR - NEAR), 1.0, 11.0, note, "", "G7")
