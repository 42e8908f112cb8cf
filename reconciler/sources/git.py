"""Specs from a ref of a git repository, by the `git` program of this machine with its user's credentials.

Nothing of a repository is run: no hook, no filter, no submodule; links in it are plain files.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

from reconciler.core.location import GitLocation, check_commit, check_verify, is_ref_name, parse_location
from reconciler.core.observed import clean
from reconciler.core.semver import highest, parse_range
from reconciler.errors import SourceError, SpecError
from reconciler.sources import Revision
from reconciler.sources._git import Git
from reconciler.sources._mirror import FETCHED, FULL, Mirror
from reconciler.sources._signatures import Signatures, Tip
from reconciler.sources.directory import Known, load_counted

_BRANCH, _TAG = "refs/heads/", "refs/tags/"
_DEFAULT_PATH = "specs"


def open_git(text: str, *, verify: str | None, allowed_signers: str | None, state: Path) -> GitSource:
    """The source at a URL. Nothing is fetched yet. Raises SourceError(bad-url)."""
    location = parse_location(text)
    signers = allowed_signers or location.allowed_signers
    mode = check_verify(verify) or location.verify or ("head" if signers else None)
    if mode and not signers:
        raise SourceError(
            f"`verify={mode}` needs to know who may sign",
            code="bad-url",
            remedy="name a file in the format of ssh-keygen(1), ALLOWED SIGNERS: `allowed_signers=PATH`",
            retry=False,
        )
    if signers:
        signers = os.path.abspath(os.path.expanduser(signers))
        if not os.path.isfile(signers):
            raise SourceError(f"there is no allowed signers file {signers}", code="bad-url", retry=False)
    return GitSource(dataclasses.replace(location, verify=mode, allowed_signers=signers), state)


class GitSource:
    """One ref of one repository. It has to be asked, or poked by a webhook."""

    polls = True

    def __init__(self, location: GitLocation, state: Path) -> None:
        self.name = location.name
        self._location = location
        git = Git("/".join(location.url.split("/")[:3]), location.username, location.password)
        key = hashlib.sha256(location.url.encode()).hexdigest()[:24]
        self._mirror = Mirror(location.url, Path(os.path.abspath(state)) / "sources" / key, git)
        self._signatures = (
            Signatures(self._mirror, location.allowed_signers, location.verify, f"{location.ref_kind}:{location.ref}")
            if location.verify and location.allowed_signers
            else None
        )
        self._poked = asyncio.Event()
        self._held: frozenset[str] = frozenset()
        self._known = Known()

    async def read(self) -> Revision:
        """Ask the remote, fetch what is new, verify it, and read it. Raises SpecError or SourceError."""
        self._poked.clear()
        async with self._working():
            tip = await self._newest()
            id = self._id(tip)
            try:
                if self._signatures:
                    await self._signatures.check(tip)
                return await self._revision(tip, id)
            except (SourceError, SpecError) as error:
                error.revision = id
                raise

    async def recall(self, commit: str, *, fetch: bool = False) -> Revision | None:
        """A commit that is kept here, and with `fetch` any that the remote has; it has to verify as every other.

        None where it is not kept, or is not valid any more; with `fetch`, raises as `read` does.
        """
        try:
            async with self._working():
                return await self._recall(check_commit(commit), fetch)
        except (SourceError, SpecError):
            if fetch:
                raise
            return None

    async def _recall(self, commit: str, fetch: bool) -> Revision | None:
        kept = await self._mirror.kept(commit)
        here = self._mirror.has_tree(commit) or await self._mirror.has_commit(commit)
        if not here and not fetch:
            return None
        tip = Tip("", kept or commit, commit) if here else await self._by_id(commit)
        if self._signatures:
            await self._signatures.check_head(tip)
        return await self._revision(tip, _hash(commit))

    def hold(self, commits: frozenset[str]) -> None:
        """These commits stay on this machine, whatever else is cleared away."""
        self._held = commits

    async def changed(self) -> None:
        """Returns when it was poked since the last read began."""
        await self._poked.wait()

    def poke(self) -> None:
        """A webhook says: look now."""
        self._poked.set()

    async def close(self) -> None:
        """Nothing is open between reads."""

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        try:
            async with self._mirror.locked():
                yield
        except OSError as error:  # of the disk: what is in force stays in force
            raise SourceError(f"{self.name}: {error.strerror or error}", code="fetch-failed") from None
        except SourceError as error:
            if not error.message.startswith(self.name):
                error.message = f"{self.name}: {error.message}"
                error.args = (error.message,)
            raise

    def _id(self, tip: Tip) -> str:
        name = tip.ref.removeprefix(_BRANCH).removeprefix(_TAG)
        return f"{name}@{_hash(tip.commit)}" if name else _hash(tip.commit)

    async def _newest(self) -> Tip:
        """What the ref names now, with its commit in the mirror."""
        if self._location.ref_kind == "commit":
            commit = self._location.ref
            return Tip("", commit, commit) if await self._mirror.has_commit(commit) else await self._by_id(commit)
        ref, known = await self._resolve()
        if await self._mirror.has_commit(known) is None:
            if not await self._mirror.fetch(f"+{ref}:{FETCHED}", length=len(known)):
                raise _no_ref(f"`{ref}` is not there any more")
            # The ref may have moved since it was resolved: what came counts.
            known = await self._mirror.resolve(FETCHED) or known
        found = await self._mirror.has_commit(known)
        if found is None:
            raise _no_ref(f"`{ref}` names no commit")
        return Tip(ref, known, found)

    async def _resolve(self) -> tuple[str, str]:
        """The full name of the ref, and the id of the object that it names on the remote."""
        kind, name = self._location.ref_kind, self._location.ref
        if kind == "semver":
            return await self._highest(name)
        ref = {"branch": _BRANCH, "tag": _TAG}.get(kind, "") + (name or "HEAD")
        refs = await self._mirror.ls_remote(ref)
        if ref not in refs:
            what = f"there is no {kind} `{name}`" if name else "the repository has no HEAD: nothing was pushed yet"
            raise _no_ref(what)
        branch = refs.get(f"symref {ref}", "")
        # What the remote says is its branch goes into a refspec: only where it is the name of one.
        return branch if branch.startswith(_BRANCH) and is_ref_name(branch) else ref, refs[ref]

    async def _highest(self, text: str) -> tuple[str, str]:
        refs = await self._mirror.ls_remote(_TAG + "*")
        tags = [ref.removeprefix(_TAG) for ref in refs if ref.startswith(_TAG) and not ref.endswith("^{}")]
        best = highest(tags, parse_range(text))
        if best is None:
            raise _no_ref(f"none of {len(tags)} tags is a version in `{text}`")
        return _TAG + best, refs[_TAG + best]

    async def _by_id(self, commit: str) -> Tip:
        """Fetch a commit; where the server does not give it out by its id, with all branches and tags."""
        if not await self._mirror.fetch(f"+{commit}:{FETCHED}", length=len(commit)):
            all_refs = [f"+{prefix}*:refs/reconciler/all/{prefix}*" for prefix in (_BRANCH, _TAG)]
            await self._mirror.fetch(*all_refs, depth=FULL, length=len(commit))
        if await self._mirror.has_commit(commit) != commit:
            raise _no_ref(f"there is no commit {commit}")
        return Tip("", commit, commit)

    async def _revision(self, tip: Tip, id: str) -> Revision:
        tree = await self._mirror.tree(tip.commit, tip.witness)
        await self._mirror.clear(self._held | {tip.commit})
        folder = await asyncio.to_thread(self._folder, tree, id)
        desired, files = await asyncio.to_thread(load_counted, str(folder), within=str(tree), known=self._known)
        return Revision(id, tip.commit, dataclasses.replace(desired, revision=id), files)

    def _folder(self, tree: Path, id: str) -> Path:
        path = self._location.path
        if path is None:
            return tree / _DEFAULT_PATH if (tree / _DEFAULT_PATH).is_dir() else tree
        if not (tree / path).is_dir():
            raise SourceError(f"there is no folder `{path}` in {id}", code="path-missing")
        return tree / path


def _hash(commit: str) -> str:
    return f"{'sha1' if len(commit) == 40 else 'sha256'}:{commit}"


def _no_ref(what: str) -> SourceError:
    return SourceError(clean(what, 500), code="ref-not-found", remedy="git ls-remote shows what is there")
