"""G4: a look at every host on warm connections, over pyinfra and over ansible's shell module, for the same data.

Whole processes of theirs, as they are used; ours is the cycle of a process that is there already.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks import farm, noop, peers
from benchmarks.figure import Figure, Sample, against, alternately, sampled_process
from benchmarks.warm import Warm

HOSTS = 50


class Tool:
    """One command line of a peer, which was run once: it has to tell what a look does."""

    def __init__(self, argv: list[str], env: Mapping[str, str], cwd: Path, expected: int) -> None:
        self._argv, self._env, self._cwd = argv, env, str(cwd)
        done = subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, check=False)
        if (done.stdout + done.stderr).count("written") < expected * farm.SESSIONS:
            raise RuntimeError(f"{argv[0]} told something else: {done.stdout[-500:]} {done.stderr[-500:]}")

    async def cycle(self) -> Sample:
        """One whole process."""
        return await asyncio.to_thread(sampled_process, self._argv, self._env, self._cwd)


def pyinfra(place: farm.Farm, hosts: int) -> Tool:
    """`pyinfra INVENTORY fact server.Command`."""
    names = ", ".join(f'"h{number}"' for number in range(hosts))
    (place.root / "inventory.py").write_text(
        f'hosts = ([{names}], {{"ssh_config_file": "{place.ssh_config}", '
        f'"ssh_known_hosts_file": "{place.controller}/.ssh/known_hosts"}})\n',
        encoding="utf-8",
    )  # fmt: skip
    argv = [
        str(peers.tools() / "pyinfra"),
        "inventory.py",
        "fact",
        "server.Command",
        f"command={farm.look_like_ours()}",
    ]
    return Tool(argv, place.env, place.root, hosts)


def ansible(place: farm.Farm, hosts: int) -> Tool:
    """`ansible all -m shell` on masters, fifty hosts at once."""
    inventory = "".join(f"h{number}\n" for number in range(hosts))
    (place.root / "inventory").write_text(inventory, encoding="utf-8")
    masters = "-o ControlMaster=auto -o ControlPersist=120"
    env = {
        **place.env, "ANSIBLE_HOME": str(place.root / "ansible"), "ANSIBLE_PIPELINING": "1", "ANSIBLE_FORKS": "50",
        "ANSIBLE_SSH_ARGS": f"-F {place.ssh_config} {masters}", "ANSIBLE_SSH_CONTROL_PATH_DIR": str(place.root / "acm"),
        "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else "auto",
    }  # fmt: skip
    # Braces are templates to ansible, and JSON where they come first.
    script = "cd && {% raw %}" + farm.look_like_ours() + "{% endraw %}"
    argv = [str(peers.tools() / "ansible"), "all", "-i", "inventory", "-m", "shell", "-a", script]
    return Tool(argv, env, place.root, hosts)


def measure(full: bool = False) -> list[Figure]:
    """Two peers, same data and no-op."""
    peers.tools()
    return asyncio.run(_measure(noop.LARGE if full else HOSTS))


async def _measure(hosts: int) -> list[Figure]:
    place = farm.shared(hosts)
    tools = (("pyinfra", pyinfra(place, hosts), 20, 40), ("ansible shell, warm", ansible(place, hosts), 100, 250))
    found = []
    async with Warm(place, hosts) as warm:
        with noop.delayed(place.line, 0.05):
            works = (warm.changed_cycle, *(tool.cycle for _, tool, _, _ in tools))
            changed, *theirs = await alternately(works, runs=3)
            await warm.settle()  # right after a change no host can tell that there was none
            (ours,) = await alternately((warm.cycle,), runs=len(changed))
    for (name, _, same, idle), peer in zip(tools, theirs, strict=True):
        note = f"{hosts} hosts, 50 ms; to be {{}}x faster."
        found += [
            against(f"look, everything changed, over {name}", changed, peer, 1 / same, note.format(same), target="G4"),
            against(f"look, nothing changed, over {name}", ours, peer, 1 / idle, note.format(idle), target="G4"),
        ]
    return found
