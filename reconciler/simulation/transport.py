"""`Transport` over simulated machines, with a script of faults: what goes wrong at which call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import get_args

from reconciler.errors import HostError
from reconciler.simulation.look import look
from reconciler.simulation.machine import Fault, Files, Machine
from reconciler.simulation.stores import Staging, parse_stage, staged
from reconciler.simulation.texts import Operation, parse_look_call, parse_operation
from reconciler.transports import Completed

SLOW, NEVER = 5.0, 1e9  # seconds until an answer comes
SLEEP = 100.0  # seconds; longer than a lease
FAULTS: tuple[Fault, ...] = get_args(Fault)


class Line:
    """What connects one controller with the machines: its faults, its log, and whether it still lives."""

    def __init__(self, sent: Callable[[str, bytes], None]) -> None:
        self.sent = sent
        self.faults: dict[str, list[Fault]] = {}
        self.calls = 0
        self.dies_at: int | None = None
        self.freezes_at: int | None = None
        self.wakes = 0.0
        self.dead = False
        self.died = asyncio.Event()
        self.log: list[tuple[str, Operation]] = []
        self.unseen: set[str] = set()  # machines of which the last look gave no whole answer

    async def awake(self) -> None:
        """A controller that sleeps, as a laptop does, sends nothing until it wakes up, then goes on where it was."""
        now = asyncio.get_running_loop().time()
        if self.freezes_at is not None and self.calls + 1 >= self.freezes_at:
            self.freezes_at, self.wakes = None, now + SLEEP
        if self.wakes > now:
            await asyncio.sleep(self.wakes - now)

    def next_fault(self, machine: Machine) -> Fault:
        """The fault of this call. The controller dies at its appointed call, before anything is sent."""
        self.calls += 1
        if self.dies_at is not None and self.calls >= self.dies_at:
            self.dead = True
            self.died.set()
        if self.dead:
            raise HostError("the controller is dead", code="dropped", retry=False)
        if machine.silent:
            return "silence"
        waiting = self.faults.get(machine.name, [])
        return waiting.pop(0) if waiting else machine.trouble


def dropped(machine: Machine) -> HostError:
    """The connection is gone."""
    return HostError(f"{machine.name}: the connection was lost", code="dropped")


class SimulatedTransport:
    """One connection of one controller to one machine."""

    def __init__(self, line: Line, machine: Machine) -> None:
        self._line = line
        self._machine = machine
        self._cuts = machine.links_cut
        self._closed = False

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 30.0, limit: int = 16_000_000
    ) -> Completed:
        """An operation on stdin of `sh`, or a question in `sh -c`."""
        await self._line.awake()
        fault = self._line.next_fault(self._machine)
        self._line.sent(" ".join(argv), stdin)
        self._check(fault)
        if fault == "silence":
            await asyncio.sleep(timeout)
            raise HostError(f"{self._machine.name}: no answer within {timeout:g} s", code="timed-out")
        if tuple(argv) != ("sh",):
            assert argv[:2] == ("sh", "-c"), argv
            return Completed(0, b"yes\n" if "echo yes" in argv[2] else b"$ \n", b"")
        op = parse_operation(stdin.decode())
        self._line.log.append((self._machine.name, op))
        if fault.startswith("power"):
            self._machine.power_after = int(fault[6:])
        work = self._machine.spawn(self._machine.perform(op))
        if fault == "during":
            await asyncio.sleep(0.05)
            raise dropped(self._machine)
        answer = await self._until_cut(work, {"hang": NEVER, "slow": SLOW}.get(fault, 0.0), timeout)
        return Completed(0, _spoilt(fault, f"answer\t{op['NONCE']}\t{answer}\n".encode()), b"")

    async def _until_cut(self, work: asyncio.Task[str], more: float, timeout: float) -> str:
        """The end of an operation; a power cut breaks the line, and a line may hang behind it."""
        cut = asyncio.create_task(self._machine.cut.wait())
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wait([work, cut], return_when=asyncio.FIRST_COMPLETED)
                if cut.done() or work.cancelled():
                    raise dropped(self._machine)
                await asyncio.sleep(NEVER if self._machine.silent else more)
                return work.result()
        except TimeoutError:
            raise HostError(f"{self._machine.name}: no answer within {timeout:g} s", code="timed-out") from None
        finally:
            cut.cancel()

    def _check(self, fault: Fault) -> None:
        lost = self._cuts != self._machine.links_cut
        if self._closed or lost or not self._machine.up or fault == "before":
            raise dropped(self._machine)

    async def open(self, argv: Sequence[str]) -> SimulatedChannel | StagingChannel:
        """The long-lived shell for looks, a shell that reads what is new, or one that takes files in."""
        self._check("")
        if tuple(argv) != ("sh",):
            fault = self._line.next_fault(self._machine)
            self._line.sent("sh", b"")
            self._check(fault)
            return StagingChannel(self._machine, parse_stage(list(argv)), fault, self._check)
        return SimulatedChannel(self._line, self._machine, self._check)

    async def terminal(self, argv: Sequence[str]) -> int:
        raise AssertionError("nobody attaches here")

    async def read(self, path: str, limit: int = 16_000_000) -> bytes:
        raise FileNotFoundError(path)

    async def write(self, path: str, data: bytes, mode: int = 0o600) -> None:
        raise AssertionError("the program writes no files on hosts but by operations")

    async def close(self) -> None:
        self._closed = True


class SimulatedChannel:
    """A shell that looks, or reads what is new in files."""

    def __init__(self, line: Line, machine: Machine, check: Callable[[Fault], None]) -> None:
        self._line = line
        self._machine = machine
        self._check = check
        self._answer = b""
        self._fault: Fault = ""
        self._looks = False
        self._pulls = False  # whether it has been told how
        self._tells = False  # whether it is the look that a plan rests on; digests come later, and may be lacking

    async def write(self, data: bytes) -> None:
        script = data.decode()
        self._looks = not script.startswith("NONCE=")
        checks = parse_look_call(script)[2] if self._looks else []
        self._tells = self._looks and not any(kind == "digest" for kind, _ in checks)
        if self._tells:
            self._line.unseen.add(self._machine.name)
        self._fault = self._line.next_fault(self._machine)
        self._line.sent("sh", data)
        self._check(self._fault)
        if self._fault == "silence":
            return
        await asyncio.sleep(0.02)
        self._machine.looked = self._machine.time()
        if self._looks:
            answer = look(self._machine, *parse_look_call(script))
        else:
            answer, self._pulls = self._machine.store.pull(script, defined=self._pulls), True
        self._answer = _spoilt(self._fault, answer)

    async def read(self, limit: int = 65536) -> bytes:
        await _wait(self._fault, self._machine)
        if self._fault.startswith("power"):
            self._machine.power_cut()
        if self._fault in ("during", "after") or self._fault.startswith("power"):
            raise dropped(self._machine)
        self._check("")
        if not self._looks and not self._answer:
            return b""  # it has ended
        piece = limit if self._looks else limit // 97
        data, self._answer = self._answer[:piece], self._answer[piece:]
        if self._tells and not self._answer and self._fault not in ("cut", "garbage"):
            self._line.unseen.discard(self._machine.name)
        return data

    async def close(self) -> None:
        pass


class StagingChannel:
    """A shell that takes files in for a launch."""

    def __init__(self, machine: Machine, staging: Staging, fault: Fault, check: Callable[[Fault], None]) -> None:
        self._machine = machine
        self._staging = staging
        self._fault = fault
        self._check = check
        self._stdin = b""
        self._answer: bytes | None = None
        self._whole = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self._check("")
        self._stdin += data
        if self._fault == "silence":
            return
        if self._fault == "during" or len(self._stdin) < self._staging.total:
            if self._fault == "during":
                raise dropped(self._machine)
            return
        await asyncio.sleep(0.02)
        if self._fault.startswith("power"):
            self._machine.power_cut()
            raise dropped(self._machine)
        if self._machine.disk_full:
            self._answer = f"{self._staging.nonce}\tbegin\n{self._staging.nonce}\tfull\n".encode()
        else:
            files = self._machine.sessions.setdefault(self._staging.session, Files())
            files.incoming, answer = staged(self._machine.store, self._staging, self._stdin)
            self._answer = _spoilt(self._fault, answer)
        self._whole.set()

    async def read(self, limit: int = 65536) -> bytes:
        cut = self._machine.cut
        if self._fault == "silence":
            await asyncio.sleep(NEVER)
        waits = [asyncio.create_task(event.wait()) for event in (self._whole, cut)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        await _wait(self._fault, self._machine)
        self._check("")
        if self._fault == "after" or self._answer is None:
            raise dropped(self._machine)
        data, self._answer = self._answer[:limit], self._answer[limit:]
        return data

    async def close(self) -> None:
        pass


async def _wait(fault: Fault, machine: Machine) -> None:
    """Until an answer comes, if ever."""
    if fault == "slow":
        await asyncio.sleep(SLOW)
    if fault in ("hang", "silence") or machine.silent:
        await asyncio.sleep(NEVER)


def _spoilt(fault: Fault, answer: bytes) -> bytes:
    if fault == "cut":
        return answer[: len(answer) * 2 // 3]
    if fault == "garbage":
        return b"\x00\xff motd \x1b[2J\n" + answer.replace(b"{", b"}", 1)
    return answer
