"""Many hosts behind one SSH server: each user name is a simulated machine of its own, in real time.

Real hosts would cost the machine that measures far more than the program that is measured. Everything on the line is
real: SSH, the scripts, the answers. `python -m benchmarks.ssh_hosts KEY` prints its port and serves until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

import asyncssh

from reconciler.simulation.look import look
from reconciler.simulation.machine import Machine
from reconciler.simulation.texts import parse_look_call, parse_operation


class Names(dict[str, Machine]):
    """Machines by name, made when first asked for."""

    def __missing__(self, name: str) -> Machine:
        self[name] = Machine(name)
        return self[name]


class Anyone(asyncssh.SSHServer):
    """Any key is good."""

    def begin_auth(self, username: str) -> bool:
        """Ask for one, as a real host does."""
        return True

    def public_key_auth_supported(self) -> bool:
        """The only way."""
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        """Whoever it is."""
        return True


async def serve(key: str) -> None:
    """Until cancelled."""
    machines = Names()

    async def program(process: asyncssh.SSHServerProcess[bytes]) -> None:
        machine = machines[process.get_extra_info("username")]
        if process.command != "exec sh":
            process.stdout.write(b"$ \n")
            process.exit(0)
            return
        await shell(machine, process)

    server = await asyncssh.create_server(
        Anyone, "127.0.0.1", 0, server_host_keys=[key], process_factory=program, encoding=None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.wait_closed()


async def shell(machine: Machine, process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Looks and echoes as they come; an operation is what ends with its input."""
    script = b""
    while data := await process.stdin.read(1 << 16):
        script += data
        last = script[script.rfind(b"\n", 0, -1) + 1 :]
        if not script.endswith(b"\n"):
            continue
        if last.startswith(b"reconciler_look "):
            process.stdout.write(look(machine, *parse_look_call(script.decode())))
            script = b""
        elif last.startswith(b"echo "):
            process.stdout.write(last[5:])
            script = b""
    if script:
        operation = parse_operation(script.decode())
        answer = await machine.spawn(machine.perform(operation))
        process.stdout.write(f"answer\t{operation['NONCE']}\t{answer}\n".encode())
    process.exit(0)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
