"""What is kept of a git repository on this machine: a shallow bare mirror, and the trees of its newest commits.

STATE/sources/KEY/lock           held while anything here is written
STATE/sources/KEY/mirror.git
STATE/sources/KEY/trees/COMMIT   the files of a commit; complete, because it got its name at the end
STATE/sources/KEY/verified/REF   the last commit of a ref whose history was verified
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from reconciler.core.observed import clean
from reconciler.errors import SourceError
from reconciler.sources._git import Git, Ran

FULL = 2147483647  # git's word for all of the history
FETCHED = "refs/reconciler/fetched"
_KEPT = "refs/reconciler/kept/"
_TREES = 3
_FETCH_TIMEOUT = 60.0
_STALE = 120.0
_DAMAGED = re.compile(
    r"corrupt|not a git repository|bad object|unable to read|did not send all|loose object|missing blob|unpack tree"
)
_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REMEDIES = (
    ("Permission denied (", "no SSH key is accepted there: try `ssh -o BatchMode=yes` with the same user and host"),
    ("Host key verification failed", "connect once with `ssh`, compare the key and accept it"),
    ("could not read Username", "no credentials are known: set up a credential helper of git, or use `git+ssh://`"),
    ("Authentication failed", "the credentials are refused: see `git credential`"),
    ("Could not resolve host", "check the name of the host, and the network"),
    ("dubious ownership", "git config --global --add safe.directory PATH"),
    ("does not appear to be a git repository", "check the path of the repository"),
    ("not found", "check the path of the repository, and whether the credentials may see it"),
)


class Mirror:
    """The mirror of one URL. Everything but `locked` is called with the lock held."""

    def __init__(self, url: str, directory: Path, git: Git) -> None:
        self.directory = directory
        self._url = url
        self._git = git
        self._repository = directory / "mirror.git"
        self._trees = directory / "trees"

    @contextlib.asynccontextmanager
    async def locked(self) -> AsyncIterator[None]:
        """Nobody else works on this mirror meanwhile. Raises SourceError(fetch-failed) when it does not become free."""
        for made in (self.directory.parent, self.directory, self._trees):
            made.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await self._wait_for(lock)
            await asyncio.to_thread(self._clear_leftovers)
            yield
        finally:
            os.close(lock)

    async def _wait_for(self, lock: int) -> None:
        try:
            async with asyncio.timeout(_FETCH_TIMEOUT):
                while not _try(lock):  # noqa: ASYNC110 - the event is in another process
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise SourceError(f"another process works on {self.directory}", code="fetch-failed") from None

    def _clear_leftovers(self) -> None:
        """Of a git or a program that was killed. A git that outlived its program may still hold young lock files."""
        old = time.time() - _STALE
        if (self._repository / "refs").is_dir():
            for file in (*self._repository.glob("*.lock"), *(self._repository / "refs").rglob("*.lock")):
                with contextlib.suppress(FileNotFoundError):
                    if file.stat().st_mtime < old:
                        file.unlink()
        for tree in self._trees.glob(".new-*"):
            shutil.rmtree(tree, ignore_errors=True)

    async def ls_remote(self, *patterns: str) -> dict[str, str]:
        """The ids of refs of the remote, by name; under "symref HEAD" the branch that is its HEAD.

        Raises SourceError(fetch-failed).
        """
        args = ["ls-remote", "--symref", "--", self._url, *patterns]
        ran = await self._git.run(args, cwd=self.directory, timeout=_FETCH_TIMEOUT)
        if ran.code != 0:
            raise _failed("the repository cannot be reached", ran)
        refs: dict[str, str] = {}
        for line in ran.out.splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                refs[f"symref {name}"] = value.removeprefix("ref: ")
            elif _ID.fullmatch(value):
                refs[name] = value
        return refs

    async def fetch(self, *refspecs: str, depth: int = 1, length: int = 40) -> bool:
        """Fetch into the mirror; False where the server does not give out what is named by its id.

        A damaged mirror is made anew, once. `length` is that of the repository's ids. Raises SourceError(fetch-failed).
        """
        for attempt in (1, 2):
            await self._make(length)
            ran = await self._in(
                "fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules",
                "--no-auto-gc", f"--depth={depth}", "--", self._url, *refspecs, timeout=_FETCH_TIMEOUT,
            )  # fmt: skip
            if ran.code == 0:
                return True
            if "not our ref" in ran.err or "unadvertised object" in ran.err or "couldn't find remote ref" in ran.err:
                return False
            if attempt == 1 and _DAMAGED.search(ran.err):
                await asyncio.to_thread(shutil.rmtree, self._repository, True)
                continue
            break
        raise _failed("the repository cannot be fetched", ran)

    async def _make(self, length: int) -> None:
        if not (self._repository / "HEAD").exists():
            await asyncio.to_thread(shutil.rmtree, self._repository, True)
            kind = "sha256" if length == 64 else "sha1"
            args = ["init", "--quiet", "--bare", "--template=", f"--object-format={kind}", str(self._repository)]
            ran = await self._git.run(args, cwd=self.directory)
            if ran.code != 0:
                raise _failed("the mirror cannot be made", ran)
            # These win over every .gitattributes: files are written as they are, and no filter of the user's runs.
            attributes = self._repository / "info" / "attributes"
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text("* -filter -text -eol -ident -working-tree-encoding\n")

    async def git(self, *args: str, timeout: float = 30.0) -> Ran:
        """Run git on the mirror, which may not exist yet: then it says so."""
        return await self._in(*args, timeout=timeout)

    async def _in(self, *args: str, timeout: float, env: dict[str, str] | None = None) -> Ran:
        where = f"--git-dir={self._repository}"
        return await self._git.run([where, *args], cwd=self.directory, timeout=timeout, env=env)

    async def resolve(self, name: str) -> str | None:
        """The id of an object that the mirror has; None where it has it not."""
        ran = await self._in("rev-parse", "--verify", "--quiet", name, timeout=30.0)
        return ran.out.strip() if ran.code == 0 else None

    async def has_commit(self, name: str) -> str | None:
        """The id of the commit that `name` is or points to, where the mirror has it."""
        found = await self.resolve(f"{name}^{{commit}}")
        return found if found and (await self._in("cat-file", "-e", found, timeout=30.0)).code == 0 else None

    async def author(self, commit: str) -> str:
        """Who made a commit, as it says itself: `name <address>`; "" where the mirror has its files only."""
        ran = await self._in("cat-file", "commit", commit, timeout=30.0)
        head = ran.out.partition("\n\n")[0] if ran.code == 0 else ""
        lines = [line for line in head.splitlines() if line.startswith("author ")]
        return clean(lines[0].removeprefix("author ").rpartition("> ")[0] + ">", 200) if lines else ""

    async def kept(self, commit: str) -> str | None:
        """What was verified for a commit whose tree is kept: itself, or the tag that named it."""
        return await self.resolve(_KEPT + commit)

    async def tree(self, commit: str, witness: str) -> Path:
        """The directory with the files of a commit; `witness` is what stands for it: itself or a tag.

        Links are plain files in it, filters and hooks did not run. Raises SourceError(fetch-failed).
        """
        target = self._trees / commit
        if not target.is_dir():
            await self._materialise(commit, target)
        os.utime(target)
        await self._in("update-ref", _KEPT + commit, witness, timeout=30.0)
        return target

    async def _materialise(self, commit: str, target: Path) -> None:
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=self._trees))
        files = new / "files"
        files.mkdir()
        try:
            env = {"GIT_INDEX_FILE": str(new / "index")}
            for step in (["read-tree", commit], ["checkout-index", "--all", "--quiet"]):
                ran = await self._in(f"--work-tree={files}", *step, timeout=_FETCH_TIMEOUT, env=env)
                if ran.code != 0:
                    if _DAMAGED.search(ran.err):  # a commit without its files: the next attempt fetches it anew
                        await asyncio.to_thread(shutil.rmtree, self._repository, True)
                    raise _failed(f"the files of {commit} cannot be written", ran)
            files.rename(target)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    async def clear(self, hold: frozenset[str]) -> None:
        """Keep the trees of the newest commits and of those in `hold`; let the others go."""
        trees = sorted(self._trees.iterdir(), key=lambda tree: tree.stat().st_mtime_ns, reverse=True)
        old = [tree for tree in trees[_TREES:] if tree.name not in hold]
        for tree in old:
            await self._in("update-ref", "-d", _KEPT + tree.name, timeout=30.0)
            await asyncio.to_thread(shutil.rmtree, tree, True)
        if old:
            await self._in("gc", "--auto", "--quiet", timeout=_FETCH_TIMEOUT)

    def shallow(self) -> frozenset[str]:
        """Commits whose parents were not fetched."""
        with contextlib.suppress(FileNotFoundError):
            return frozenset((self._repository / "shallow").read_text().split())
        return frozenset()

    def has_tree(self, commit: str) -> bool:
        """Whether the files of a commit are kept."""
        return (self._trees / commit).is_dir()

    def verified_file(self, ref: str) -> Path:
        """Where the last verified commit of a ref is remembered."""
        return self.directory / "verified" / hashlib.sha256(ref.encode()).hexdigest()[:16]


def _try(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _failed(what: str, ran: Ran) -> SourceError:
    lines = [clean(line.strip(), 300) for line in ran.err.splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))] or lines
    remedy = next((remedy for text, remedy in _REMEDIES if text in ran.err), "")
    reason = "; ".join(said[-3:]) or f"git ended with status {ran.code}"
    return SourceError(f"{what}: {reason}", code="fetch-failed", remedy=remedy)
