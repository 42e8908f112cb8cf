"""The agents' stores on a simulated machine: files of conversations, and the texts that copy them to and fro."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from reconciler.simulation.texts import words_of_shell
from reconciler.transcripts.pieces import FILE_LIMIT
from reconciler.transcripts.scripts import common, text

HOME = "/home/me"
_VARIABLE = re.compile(r"\$\{([A-Za-z_]+)(?::-([^${}]*))?\}")
_PROBE = re.compile(r"^printf '%s\\t%s\\t%s\\n' (\S+) (\S+) (\".*\")$", re.MULTILINE)


def sha(data: bytes) -> str:
    """The digest by which both sides compare."""
    return hashlib.sha256(data).hexdigest()


def whole_lines(path: str, content: bytes) -> bytes:
    """Without a last line that was torn."""
    return content[: content.rfind(b"\n") + 1] if path.endswith(".jsonl") else content


@dataclass
class Stored:
    """One file."""

    content: bytes
    mtime: int


@dataclass
class Store:
    """All files of all agents on one machine. `written` is told of every change that our program makes."""

    now: Callable[[], int]
    written: Callable[[str, bytes, bytes], None] = lambda _path, _before, _after: None
    files: dict[str, Stored] = field(default_factory=dict)

    def get(self, path: str) -> bytes:
        """What lies there; nothing where there is no such file."""
        return self.files[path].content if path in self.files else b""

    def append(self, path: str, data: bytes) -> None:
        """An agent writes."""
        self.files[path] = Stored(self.get(path) + data, self.now())

    def put(self, path: str, data: bytes) -> None:
        """Our program writes."""
        self.written(path, self.get(path), data)
        self.files[path] = Stored(data, self.now())

    def change(self, path: str, data: bytes) -> None:
        """Somebody else does, and it shows: the size or the time is another one."""
        old = self.files[path]
        same = len(old.content) == len(data) and old.mtime == self.now()
        self.files[path] = Stored(data, self.now() + same)

    def found(self, pattern: str) -> list[str]:
        """The files that a glob finds."""
        parts = pattern.split("/")
        return [
            path
            for path in sorted(self.files)
            if len(names := path.split("/")) == len(parts)
            and all(fnmatch.fnmatchcase(name, part) for name, part in zip(names, parts, strict=True))
        ]

    def digest(self, value: str) -> str:
        """A check of a look: the digest of `LENGTH PATH`, or size and digest of the whole lines of `lines PATH`."""
        length, _, path = value.partition(" ")
        if length == "lines":
            lines = self.get(path)[: self.get(path).rfind(b"\n") + 1]
            return f"{len(lines)} {sha(lines)}" if path in self.files else ""
        return sha(self.get(path)[: int(length)]) if path in self.files else ""

    def pull(self, script: str, *, defined: bool) -> bytes:
        """What pull.sh prints, asked for by a script on stdin of `sh`."""
        nonce, calls = _parse_pull(script, defined=defined)
        answers = [self._grown(nonce, *words) if word == "grown" else self._frame(nonce, *words)
                   for word, *words in calls]  # fmt: skip
        return b"".join([f"{nonce}\tbegin\n".encode(), *answers, f"{nonce}\tend\n".encode()])

    def _grown(self, nonce: str, n: str, bases: str, limit: str, *paths: str) -> bytes:
        plain, out = all(path in self.files for path in paths), []
        assert n == "0"
        for number, (path, base) in enumerate(zip(paths, map(int, bases.split(" ")), strict=True)):
            data = self.get(path)
            if plain and base <= len(data) <= base + int(limit):
                mtime = self.files[path].mtime if self.files[path].mtime < self.now() - 1 else "-"
                out.append(f"{nonce}\t{number}\tgrown\t{base}\t{len(data)}\t{mtime}\t-\n".encode() + data[base:])
            else:
                out.append(f"{nonce}\t{number}\tagain\t0\t0\t0\t-\n".encode())
        sums = [f"{nonce}\tsum\t{sha(self.get(path))}\n".encode() for path in paths] if plain else []
        return b"".join([*out, *sums, f"{nonce}\tsums\n".encode()])

    def _frame(self, nonce: str, n: str, path: str, limit: str, *pairs: str) -> bytes:
        def say(word: str, base: int, size: int, mtime: str, digest: str) -> bytes:
            return f"{nonce}\t{n}\t{word}\t{base}\t{size}\t{mtime}\t{digest}\n".encode()

        assert int(limit) == FILE_LIMIT
        if path not in self.files:
            return say("missing", 0, 0, "0", "-")
        data = self.files[path].content
        mtime = str(self.files[path].mtime) if self.files[path].mtime < self.now() - 1 else "-"
        if pairs[0] != "-" and len(data) < int(pairs[0]):
            return say("short", 0, len(data), mtime, sha(data))
        word, base = "ahead", None
        for length, digest in zip(pairs[::2], pairs[1::2], strict=True):
            if length != "-" and int(length) <= len(data) and (
                int(length) == 0 or sha(data[: int(length)]) == digest
            ):  # fmt: skip
                base = int(length)
                break
            word = "other"
        new = data[base or 0 :]
        return say(word, base or 0, len(data), mtime, sha(new)) + new + f"{nonce}\t{n}\tsame\n".encode()


def _parse_pull(script: str, *, defined: bool) -> tuple[str, list[list[str]]]:
    """The nonce and the calls of `grown` and `one`."""
    first, _, rest = script.partition("\n")
    head = "" if defined else f"{common()}\n{text('pull')}\n"
    head += "{\nprintf '%s\\tbegin\\n' $NONCE\n"
    tail = "printf '%s\\tend\\n' $NONCE\n} </dev/null"
    tail += "\n" if "\none " in rest else " | dd ibs=65536 obs=65536 2>/dev/null\n"
    assert first.startswith("NONCE="), first
    assert rest.startswith(head), rest[:300]
    assert rest.endswith(tail), rest[-300:]
    lines = [line for line in rest[len(head) : -len(tail)].splitlines() if line != "now=$(date +%s)"]
    calls = [words_of_shell(line) for line in lines]
    assert all(words[0] in ("grown", "one") for words in calls)
    return first.removeprefix("NONCE="), calls


@dataclass(frozen=True)
class Staging:
    """What stage.sh is asked to do; its stdin comes later."""

    nonce: str
    session: str
    listed: int
    total: int


def parse_stage(argv: list[str]) -> Staging:
    """The arguments of `sh -c` with stage.sh."""
    assert argv[:2] == ["sh", "-c"], argv
    assert argv[2] == common() + text("stage"), "the simulated shell does not know this script"
    name, nonce, incoming, listed, total = argv[3:]
    assert name == "stage"
    found = re.fullmatch(rf"{HOME}/\.local/state/reconciler/[^/]+/sessions/([^/]+)/incoming", incoming)
    assert found, incoming
    return Staging(nonce, found[1], int(listed), int(total))


def staged(store: Store, staging: Staging, stdin: bytes) -> tuple[dict[int, bytes], bytes]:
    """What stage.sh leaves in `incoming`, and what it prints."""
    assert len(stdin) == staging.total
    listed, spool = stdin[: staging.listed].decode(), stdin[staging.listed :]
    taken: dict[int, bytes] = {}
    out = [f"{staging.nonce}\tbegin\n"]
    for line in listed.splitlines():
        word, n, path, length, digest, offset, new, whole = words_of_shell(line)
        assert word == "put_in"
        before = store.get(path)[: int(length)]
        data = before + spool[int(offset) : int(offset) + int(new)]
        if int(length) and (path not in store.files or sha(before) != digest):
            told = "changed"
        elif len(data) != int(length) + int(new):
            told = "full"
        elif sha(data) != whole:
            told = "damaged"
        else:
            told = "ok"
            taken[int(n)] = data
        out.append(f"{staging.nonce}\t{n}\t{told}\n")
    return taken, "".join([*out, f"{staging.nonce}\tend\n"]).encode()


@dataclass(frozen=True)
class Launched:
    """What a launch script does besides starting the agent: probes, and lines of `keep` and `place`."""

    probes: tuple[tuple[str, str, str], ...]
    lines: tuple[tuple[str, ...], ...]


def parse_launch(launch: str, workdir: str, name: str, fleet: str) -> Launched:
    """Read it as strictly as possible."""
    directory = f"{HOME}/.local/state/reconciler/{fleet}/sessions/{name}"
    known = {"HOME": HOME, "workdir": workdir, "dir": directory}
    probes = tuple(
        (words_of_shell(kind)[0], words_of_shell(key)[0], _value(path, known))
        for kind, key, path in _PROBE.findall(launch)
    )
    _, found, rest = launch.partition("\n(umask 077\n:\n")
    block, ended, _ = rest.partition("\n) || exit 1\n")
    assert bool(found) == bool(ended)
    lines: list[tuple[str, ...]] = []
    for line in block.splitlines() if found else ():
        if line.startswith("place "):
            _, n, size, digest, path = line.split(" ", 4)
            lines.append(("place", n, size, digest, _value(path, known)))
        else:
            words = tuple(words_of_shell(line))
            assert words[0] == "keep" or line in ('rm -rf "$dir/snapshot"', 'rm -rf "$dir/incoming"'), line
            lines.append(tuple(words))
    return Launched(probes, tuple(lines))


def _value(word: str, known: dict[str, str]) -> str:
    """A double-quoted shell word; variables that are not known are not set."""
    found = word
    while _VARIABLE.search(found):
        found = _VARIABLE.sub(lambda match: known.get(match[1], match[2] or ""), found)
    assert "$" not in found, word
    return words_of_shell(found)[0]


def line_of(number: int, words: str, host: str) -> bytes:
    """One line of a transcript."""
    return json.dumps({"n": number, "host": host, "said": words}).encode() + b"\n"


def words_of(content: bytes) -> list[str]:
    """What was said in a conversation, by its whole lines."""
    found = []
    for line in content.split(b"\n")[:-1]:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # two ends that were written behind each other
        if isinstance(entry, dict) and entry.get("said"):
            found.append(str(entry["said"]))
    return found


def name_of(path: str) -> str:
    """Conversation and name in the archive of a file on a host."""
    name = path.rpartition("/")[2]
    return f"{name.partition('.')[0]}/{name}"
