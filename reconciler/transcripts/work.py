"""One session of a sync: what to ask its host, what came, and what to make of it. Decides nothing by clocks."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO

from reconciler.core.observed import StoreFile
from reconciler.core.transcript import FILES_LIMIT, Archived, HostFile, Relation, overall, unchanged
from reconciler.errors import OperationError, ReconcilerError
from reconciler.transcripts.archive import Archive, Part
from reconciler.transcripts.manifest import Head, Manifest
from reconciler.transcripts.pieces import EMPTY, FILE_LIMIT, Slice, bounded, path_of, too_many
from reconciler.transcripts.relations import host_files
from reconciler.transcripts.results import Fork, Item, Outcome, PullResult
from reconciler.transcripts.wire import GROWN_LIMIT, Frame

_PLAIN = re.compile(r"/[^\\\0-\x1f\x7f]{1,2000}")  # paths that no digest tool prints in another way


class Work:
    """One session under way: what to ask, what came, and what to make of it."""

    def __init__(self, host: str, item: Item, archive: Archive) -> None:
        self.host = host
        self.item = item
        self.archive = archive
        self.conversation = (item.seen.record.conversation or "") if item.seen.record else ""
        self.manifest: Manifest | None = None
        self.files: dict[str, HostFile] = {}
        self.settled: dict[str, Relation] = {}  # known without asking
        self.whole: frozenset[str] = frozenset()  # of which all is wanted, for a divergence
        self.careful = False  # whether the host is to compare before it sends
        self.names: list[str] = []  # asked for, in order
        self.frames: dict[str, Frame] = {}
        self.spool: IO[bytes] | None = None
        self.spooling = threading.Lock()  # of its present spool, which several may have
        self.result: PullResult | None = None

    @property
    def open(self) -> bool:
        """Whether nothing has come of it yet."""
        return self.result is None

    @property
    def exports(self) -> bool:
        """Whether its agent's store is no files."""
        return self.item.agent.export_args(self.conversation) is not None

    def finish(self, outcome: Outcome, new: int = 0, archived: Archived | None = None) -> None:
        """What came of it."""
        forks = tuple(_forks(self.manifest)) if outcome == "diverged" and self.manifest else ()
        known = archived or (self.manifest.archived if self.manifest else None)
        self.result = PullResult(self.item.session, self.conversation, self.host, outcome, new, forks, known)

    def fail(self, error: ReconcilerError) -> None:
        """Nothing was changed by it."""
        known = self.manifest.archived if self.manifest else None
        self.result = PullResult(self.item.session, self.conversation, self.host, "failed", archived=known, error=error)

    async def guarded(self, work: object, *arguments: object) -> None:
        """Run what blocks; an error of the archive is this session's alone."""
        assert callable(work)
        try:
            await asyncio.to_thread(work, *arguments)
        except ReconcilerError as error:
            self.fail(error)

    def prepare(self, *, purged: bool) -> None:
        """What has to be asked; the result, where nothing has. `purged`: whether anything of the archive may be."""
        if not self.conversation:
            return self.finish("unknown")
        if purged and self.archive.purged(self.item.session, self.conversation):
            at = self.archive.purged_at(self.item.session, self.conversation)
            self.result = PullResult(self.item.session, self.conversation, self.host, "purged", purged_at=at)
            return None
        self.manifest = self.archive.manifest(self.item.session, self.conversation)
        if self.exports:
            return None
        if self.item.seen.facts.store is None:
            return self.finish("unknown")
        self._list(self.item.seen.facts.store)
        self.names = [name for name in self.files if name not in self.settled]
        if self.names:
            self.names += self._unlisted()
            return None
        return self._conclude()

    def _list(self, store: Sequence[StoreFile]) -> None:
        self.files = host_files(self.item.agent, self.item.seen, self.conversation)
        if max(len(self.files), len(store)) > FILES_LIMIT:
            raise too_many(self.item.session)
        for name, here in self.files.items():
            if (relation := self._settled(name, here)) is not None:
                self.settled[name] = relation

    def _settled(self, name: str, here: HostFile) -> Relation | None:
        """What is as it was at the last sync need not be read."""
        if self.manifest is None:
            return None
        other = self.manifest.others.get(name)
        if other is not None and other.host == self.host:
            same = (here.path, here.size, here.mtime) == (other.host_path, other.host_size, other.host_mtime)
            return "diverged" if same else None
        there = self.manifest.archived.files.get(name)
        same_host = self.manifest.archived.host == self.host
        return "equal" if there is not None and same_host and unchanged(here, there) else None

    def _unlisted(self) -> list[str]:
        """Archived files that the look did not list, which it does not with more than a few, may still be there."""
        if self.manifest is None or self.manifest.archived.host != self.host:
            return []
        there = self.manifest.archived.files.values()
        missing = [file for file in there if file.name not in self.files and file.host_path]
        for file in missing:
            self.files[file.name] = HostFile(file.name, file.host_path, 0, 0)
        return [file.name for file in missing]

    @property
    def quick(self) -> bool:
        """Whether all that is asked for may just have grown: then it comes unseen, and is proven here."""
        return not self.careful and not self.whole and self.archive.at_hand and all(map(self._grown, self.names))

    def _grown(self, name: str) -> bool:
        have = self.manifest.archived.files.get(name) if self.manifest else None
        if have is None or not have.size or self.manifest is None or name in self.manifest.others:
            return False
        here = self.files[name]
        return have.size <= here.size <= have.size + GROWN_LIMIT and _PLAIN.fullmatch(here.path) is not None

    def base(self, name: str) -> int:
        """How many bytes of a file that may have grown are ours already."""
        assert self.manifest is not None
        return self.manifest.archived.files[name].size

    def request(self, name: str) -> list[str]:
        """The arguments of `one` for a file: its path, and from where on its bytes are wanted."""
        have = self.manifest.archived.files.get(name) if self.manifest else None
        first = (str(have.size), have.sha256) if have and have.size else ("0", EMPTY)
        if name in self.whole:
            first = ("-", "-")
        other = self.manifest.others.get(name) if self.manifest else None
        second = (str(other.head.size), other.head.sha256) if other and other.host == self.host else ()
        return [self.files[name].path, str(FILE_LIMIT), *first, *second]

    def take(self, name: str, frame: Frame) -> None:
        """A frame has come whole. Raises OperationError where it is no answer to what was asked."""
        asked = {int(length) for length in self.request(name)[2::2] if length != "-"} | {0}
        if frame.word in ("ahead", "other") and frame.base not in asked:
            raise OperationError(f"{self.host} answered {name} with what nobody asked for", code="sync-failed")
        self.frames[name] = frame

    def evaluate(self) -> None:
        """All frames have come: archive them, or ask again for whole files where the copies have diverged."""
        if not all(map(self._proven, self.names)):
            self.careful, self.frames = True, {}
            return None
        found = dict(self.settled)
        for name in self.names:
            found[name] = self._relation(name, self.frames[name])
        there = [relation for name, relation in found.items() if not self._gone(name)]
        relation = overall(there if {"host-ahead", "diverged"} & set(there) else found.values())
        if relation != "diverged":
            return self._conclude()
        wanted = {n for n, r in found.items() if r in ("diverged", "host-ahead") and n in self.frames}
        lacking = {name for name in wanted if self.frames[name].word != "other"}
        if lacking:
            self.whole, self.names, self.frames = frozenset(wanted), sorted(wanted), {}
            return None
        return self._keep(wanted)

    def _proven(self, name: str) -> bool:
        """Whether what is ours and what came are all of the host's file: then it has grown."""
        frame = self.frames[name]
        if frame.word == "again":
            return False
        if frame.word == "grown":
            assert self.manifest is not None
            path = path_of(self.item.session, self.conversation, name)
            sums = self.archive.beginning(path, self.manifest.archived.files[name])
            for data in bounded(self._tail(frame), frame.size - frame.base):
                sums.update(data)
            if sums.hexdigest() != frame.digest:
                return False
            self.frames[name] = replace(frame, word="ahead")
        return True

    def _tail(self, frame: Frame) -> Slice:
        assert self.spool is not None
        return Slice(self.spool, frame.at, frame.size - frame.base, self.spooling)

    def _gone(self, name: str) -> bool:
        return name in self.frames and self.frames[name].word == "missing"

    def _relation(self, name: str, frame: Frame) -> Relation:
        archived = self.manifest.archived.files.get(name) if self.manifest else None
        size = archived.size if archived else 0
        if frame.word == "missing":
            return "archive-ahead" if size else "equal"
        if frame.word == "ahead":
            return "equal" if frame.size == size else "host-ahead"
        if frame.word == "short":
            if frame.size == 0:
                return "archive-ahead"
            ours = self.archive.prefix_digest(self.item.session, self.conversation, name, frame.size)
            return "archive-ahead" if ours == frame.digest else "diverged"
        return "diverged"

    def _part(self, name: str, frame: Frame, sha256: str) -> Part:
        path = self.files[name].path
        return Part(name, frame.base, sha256, self._tail(frame), path, frame.size, frame.mtime)

    def _known(self, name: str, frame: Frame) -> bool:
        """Whether there is nothing to write down either."""
        have = self.manifest.archived.files.get(name) if self.manifest else None
        if have is None or self.manifest is None or self.manifest.archived.diverged:
            return False
        told = (have.size, have.host_path, have.host_size, have.host_mtime)
        same = told == (frame.size, self.files[name].path, frame.size, frame.mtime)
        return same and self.manifest.archived.host == self.host

    def _conclude(self) -> None:
        """No divergence: what the host has more of is appended."""
        if "diverged" in self.settled.values():
            return self.finish("diverged")
        parts, behind = [], not self.files and self.manifest is not None and not self.manifest.archived.empty
        for name, frame in self.frames.items():
            if frame.word == "ahead" and not self._known(name, frame):
                have = self.manifest.archived.files.get(name) if self.manifest else None
                parts.append(self._part(name, frame, have.sha256 if have else EMPTY))
            behind = behind or frame.word == "short"
        archived, new = None, 0
        if parts:
            before = _total(self.manifest)
            archived = self.archive.extend(
                self.item.session, self.conversation, parts, agent=self.item.agent.name, host=self.host
            )
            new = sum(file.size for file in archived.files.values()) - before
        elif self.manifest is not None and self.manifest.archived.diverged:
            # The host's copy is a beginning of ours again.
            self.archive.settle(self.item.session, self.conversation)
        self.finish("archive-ahead" if behind else "synced" if new else "unchanged", new, archived)
        return None

    def _keep(self, names: set[str]) -> None:
        parts = []
        for name in sorted(names):
            other = self.manifest.others.get(name) if self.manifest else None
            frame = self.frames[name]
            base = other.head.sha256 if other and frame.base == other.head.size and frame.base else EMPTY
            parts.append(self._part(name, frame, base))
        self.manifest = self.archive.keep_diverged(
            self.item.session, self.conversation, parts, agent=self.item.agent.name, host=self.host,
            why=f"{self.host} and the archive have different continuations",
        )  # fmt: skip
        self.finish("diverged")


def _total(manifest: Manifest | None) -> int:
    return sum(file.size for file in manifest.archived.files.values()) if manifest else 0


def _forks(manifest: Manifest) -> Iterator[Fork]:
    for name, other in manifest.others.items():
        ours = manifest.archived.files.get(name)
        yield Fork(name, other.head, Head(ours.size, ours.sha256) if ours else Head(0, EMPTY))
