"""A group chat as it lies on this machine: where, what its process says of itself, and its log as it grows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reconciler.chat import log
from reconciler.chat.entries import Entry
from reconciler.core.chats import moderator_of
from reconciler.core.spec import Desired, GroupChat
from reconciler.errors import OperationError, UsageError

POLL = 0.2  # seconds between two looks at the folder


@dataclass(frozen=True)
class Place:
    """A declared chat and its folder. `hosts` says where each member is, as far as the specs know."""

    name: str
    folder: Path
    spec: GroupChat
    moderator: str
    hosts: Mapping[str, str]


@dataclass(frozen=True)
class Owes:
    """Who owes a turn, where, since when."""

    who: str
    host: str = ""
    since: float | None = None
    status: str = ""


@dataclass(frozen=True)
class Standing:
    """What the process of a chat says of itself. `alive`: it runs at this moment."""

    alive: bool = False
    state: str = ""
    round: int = 0
    max_rounds: int = 0
    since: float | None = None
    owed: tuple[Owes, ...] = ()
    queued: int = 0
    cost: float = 0.0
    hosts: Mapping[str, str] = field(default_factory=dict)
    trouble: str = ""


def find(desired: Desired, text: str) -> Place:
    """The chat that a person means by `NAME` or `group_chat.NAME`. Raises UsageError where it is not, or not yet."""
    name = text.removeprefix("group_chat.")
    chat = desired.group_chats.get(name)
    if chat is None:
        raise UsageError(f"no group chat {name} in the specs", remedy=_hint(desired, name))
    base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    folder = base / "reconciler" / desired.fleet.name / "sessions" / name
    if not folder.is_dir():
        raise UsageError(f"group_chat.{name} has not been started yet", remedy="reconciler apply")
    moderator = moderator_of(desired, name)
    hosts = {member: desired.sessions[member].host for member in chat.participants if member in desired.sessions}
    led = desired.sessions.get(chat.moderator.session or "")
    return Place(name, folder, chat, moderator, {**hosts, moderator: led.host if led else chat.moderator.host})


def _hint(desired: Desired, name: str) -> str:
    from difflib import get_close_matches

    if name in desired.sessions:
        return f"it is a session: reconciler send {name}, reconciler transcript {name}"
    close = get_close_matches(name, desired.group_chats, 1)
    return f"did you mean {close[0]}?" if close else "group chats: " + (", ".join(desired.group_chats) or "none")


def standing(place: Place) -> Standing:
    """What the chat's process said last, checked; and whether it runs."""
    found = log.state(place.folder)
    owed = found.get("owed")
    hosts = found.get("hosts")
    return Standing(
        alive=_alive(found.get("pid")),
        state=_text(found.get("state")),
        round=round(_number(found.get("round")) or 0),
        max_rounds=round(_number(found.get("max_rounds")) or 0),
        since=_number(found.get("since")),
        owed=tuple(_owes(item) for item in owed if isinstance(item, dict)) if isinstance(owed, list) else (),
        queued=round(_number(found.get("queued")) or 0),
        cost=_number(found.get("cost")) or 0.0,
        hosts={**place.hosts, **{k: v for k, v in (hosts if isinstance(hosts, dict) else {}).items() if _text(v)}},
        trouble=_text(found.get("trouble")),
    )


def _owes(item: Mapping[str, Any]) -> Owes:
    who, host, status = (_text(item.get(key)) for key in ("who", "host", "status"))
    return Owes(who, host, _number(item.get("since")), status)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    ok = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e15
    return float(value) if ok else None  # type: ignore[arg-type]


def _alive(pid: object) -> bool:
    if not isinstance(pid, int) or isinstance(pid, bool) or not 1 < pid < 2**31:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def incarnation(place: Place) -> str:
    """Which process of the chat it is that may be asked to close. Raises OperationError where none was started."""
    try:
        return (place.folder / "incarnation").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise OperationError(
            f"group_chat.{place.name} has no incarnation: nothing was started", code="stale", remedy="reconciler apply"
        ) from None


class Tail:
    """A log that may not be there yet, as it grows. What was read once is not told again, whatever becomes of it."""

    def __init__(self, place: Place) -> None:
        self._path = place.folder / log.LOG
        self._file = (0, 0)
        self._end = 0
        self._count = 0

    def news(self) -> list[tuple[bytes, Entry]]:
        """The whole lines that are new, as they stand there and as entries. Raises OperationError(log-broken)."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if (found.st_dev, found.st_ino) != self._file or found.st_size < self._end:
                    self._file = (found.st_dev, found.st_ino)
                    self._skip(file.read())
                file.seek(self._end)
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OperationError(f"{self._path}: {error.strerror}", code="log-broken") from None
        content = content[: content.rfind(b"\n") + 1]
        entries = list(log.parse(content, self._path, self._count + 1))
        self._end += len(content)
        self._count += len(entries)
        return list(zip(content.split(b"\n"), entries, strict=False))

    def _skip(self, content: bytes) -> None:
        """Go behind as many lines as were read, or to the end, where there are not so many any more."""
        lines = content.split(b"\n")[:-1][: self._count]
        self._count = len(lines)
        self._end = sum(len(line) + 1 for line in lines)
