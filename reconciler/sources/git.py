"""Specs from a git repository, by the `git` program with its user's credentials: a shallow mirror, a tree a commit.

Nothing of the repository is run: no hooks, no filters of LFS, no submodules, and links in it are plain files.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reconciler.core.semver import highest
from reconciler.errors import SourceError
from reconciler.sources import Revision
from reconciler.sources._git_url import GitUrl, is_git, parse_git_url
from reconciler.sources.directory import load_counted

__all__ = ["GitSource", "is_git"]

_FETCH = 120.0  # seconds for what talks to the network
_LOCAL = 30.0
_KEPT = 3  # trees of the last commits
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_HEAD = "refs/reconciler/head"
_SAFE = (
    "-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "core.symlinks=false",
    "-c", "core.autocrlf=false", "-c", "core.fsmonitor=false", "-c", "gc.auto=0", "-c", "maintenance.auto=false",
    "-c", "submodule.recurse=false", "-c", "filter.lfs.smudge=cat", "-c", "filter.lfs.process=",
    "-c", "filter.lfs.required=false",
)  # fmt: skip


class GitSource:
    """One ref of one repository."""

    polls = True

    def __init__(self, text: str, *, verify: str | None, allowed_signers: str | None, state: Path) -> None:
        """Raises SourceError(bad-url)."""
        self._url: GitUrl = parse_git_url(text, verify, allowed_signers)
        self.name = self._url.shown
        self._mirror = state / "mirror.git"
        self._trees = state / "trees"
        self._poked = asyncio.Event()
        self._last: Revision | None = None
        self._own_ssh: bool | None = None  # whether the user has set how git calls ssh
        self.verified: str | None = None  # the last commit that was found to be signed, for `strict`

    # -- the protocol --------------------------------------------------------------------------------------------

    async def read(self) -> Revision:
        """What the ref is now. Raises SpecError, or SourceError."""
        await self._prepare()
        label, ref, commit = await self._resolve()
        if self._last is not None and self._last.commit == commit:
            return self._last
        await self._fetch(ref, commit)
        await self._verify(ref, commit)
        self._last = await self._load(label, commit)
        return self._last

    async def recall(self, commit: str) -> Revision | None:
        """A commit that is on this machine already; else it is fetched, where the repository can be reached."""
        if not _SHA.fullmatch(commit):
            raise SourceError(f"{self.name}: {commit} is no commit", code="ref-not-found", remedy="40 hex digits")
        await self._prepare()
        if not await self._has(commit):
            try:
                await self._fetch(commit, commit)
            except SourceError:
                return None
        await self._verify(commit, commit)
        return await self._load("HEAD", commit)

    async def changed(self) -> None:
        """Return when somebody says that there is something new; a repository never says so itself."""
        await self._poked.wait()
        self._poked.clear()

    def poke(self) -> None:
        """Ask it now."""
        self._poked.set()

    async def close(self) -> None:
        """Nothing is held between two calls."""

    # -- the steps -----------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        if not (self._mirror / "HEAD").exists():
            self._mirror.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            await self._git("init", "--bare", "--quiet", str(self._mirror), at=None)

    async def _resolve(self) -> tuple[str, str, str]:
        """How the ref is shown, its full name, and its commit now."""
        kind, value = self._url.kind, self._url.ref
        if kind == "commit":
            return "HEAD", value, value
        if kind == "head":
            out = await self._remote("--symref", "HEAD")
            branch = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", out, re.MULTILINE)
            return branch[1] if branch else "HEAD", "HEAD", self._commit_of(out, "HEAD")
        if kind == "semver":
            refs = await self._remote("refs/tags/*")
            tags = [name.removeprefix("refs/tags/") for name in _names(refs) if not name.endswith("^{}")]
            tag = highest(tags, value)
            if tag is None:
                raise SourceError(
                    f"{self.name}: none of {len(tags)} tags is in the range {value}", code="ref-not-found",
                    remedy="push a tag such as v1.0.0, or widen the range",
                )  # fmt: skip
            return tag, f"refs/tags/{tag}", self._commit_of(refs, f"refs/tags/{tag}")
        ref = f"refs/{'heads' if kind == 'branch' else 'tags'}/{value}"
        return value, ref, self._commit_of(await self._remote(ref, f"{ref}^{{}}"), ref)

    async def _remote(self, *patterns: str) -> str:
        flags = [word for word in patterns if word.startswith("--")]
        refs = [word for word in patterns if not word.startswith("--")]
        return await self._git("ls-remote", "--quiet", *flags, "--", self._url.url, *refs, seconds=_FETCH)

    def _commit_of(self, out: str, ref: str) -> str:
        found = {name: sha for sha, _, name in (line.partition("\t") for line in out.splitlines())}
        commit = found.get(f"{ref}^{{}}") or found.get(ref, "")
        if not _SHA.fullmatch(commit):
            raise SourceError(
                f"{self.name}: there is no {ref.removeprefix('refs/')}", code="ref-not-found",
                remedy=f"git ls-remote {self.name.partition('?')[0].removeprefix('git+')}",
            )  # fmt: skip
        return commit

    async def _fetch(self, ref: str, commit: str) -> None:
        if await self._has(commit) and self._url.verify != "strict":
            return
        depth = () if self._url.verify == "strict" else ("--depth", "1")
        words = ("fetch", "--quiet", "--no-tags", "--force", *depth, "--", self._url.url)
        try:
            await self._git(*words, f"{ref}:{_HEAD}", seconds=_FETCH)
        except SourceError:
            if self._url.kind != "commit" and ref != commit:
                raise
            # Not every server gives a commit by its name: all branches and tags then, with their history.
            everything = ("+refs/heads/*:refs/reconciler/heads/*", "+refs/tags/*:refs/reconciler/tags/*")
            await self._git("fetch", "--quiet", "--force", "--", self._url.url, *everything, seconds=_FETCH)
        if not await self._has(commit):
            raise SourceError(
                f"{self.name}: it does not have the commit {commit}", code="ref-not-found",
                remedy="it moved while it was read; the next time tells",
            )  # fmt: skip

    async def _has(self, commit: str) -> bool:
        with contextlib.suppress(SourceError):
            await self._git("cat-file", "-e", f"{commit}^{{tree}}")
            return True
        return False

    async def _verify(self, ref: str, commit: str) -> None:
        """Raises SourceError(verify-failed) unless the commits have good signatures by allowed signers."""
        if self._url.verify is None:
            return
        commits = [commit]
        if self._url.verify == "strict" and self.verified and self.verified != commit:
            since = self.verified
            try:
                await self._git("merge-base", "--is-ancestor", since, commit)
            except SourceError:
                raise SourceError(
                    f"{self.name}: {commit[:12]} does not descend from {since[:12]}, which was verified last",
                    code="verify-failed", remedy="was history rewritten? restart reconciler run if that was meant",
                ) from None  # fmt: skip
            commits = (await self._git("rev-list", f"{since}..{commit}")).split()
        for each in commits:
            await self._verify_one(each, ref if each == commit else "")
        self.verified = commit

    async def _verify_one(self, commit: str, ref: str) -> None:
        kind = "tag" if ref.startswith("refs/tags/") and await self._signed_tag() else "commit"
        signed = await self._git("cat-file", kind, _HEAD if kind == "tag" else commit)
        if "-----BEGIN SSH SIGNATURE-----" not in signed:
            raise SourceError(
                f"{self.name}: {kind} {commit[:12]} has no SSH signature", code="verify-failed",
                remedy="git config gpg.format ssh, then git commit -S",
            )  # fmt: skip
        config = ("-c", "gpg.format=ssh", "-c", f"gpg.ssh.allowedSignersFile={self._url.allowed_signers}")
        try:
            await self._git(*config, f"verify-{kind}", "--", _HEAD if kind == "tag" else commit)
        except SourceError as error:
            why = error.message.rpartition(": ")[2] or "no allowed signer made it"
            raise SourceError(
                f"{self.name}: the signature of {kind} {commit[:12]} does not count: {why}", code="verify-failed",
                remedy=f"is its signer in {self._url.allowed_signers}?",
            ) from None  # fmt: skip

    async def _signed_tag(self) -> bool:
        with contextlib.suppress(SourceError):
            return "-----BEGIN SSH SIGNATURE-----" in await self._git("cat-file", "tag", _HEAD)
        return False

    async def _load(self, label: str, commit: str) -> Revision:
        tree = await self._tree(commit)
        path = self._url.path
        if path is None:
            path = "specs" if (tree / "specs").is_dir() else ""
        directory = tree / path
        if not directory.is_dir():
            raise SourceError(f"{self.name}: {commit[:12]} has no directory {path}", code="path-missing",
                              remedy="?path= names a directory of the repository")  # fmt: skip
        desired, files = await asyncio.to_thread(load_counted, str(directory), path or ".", str(tree))
        revision = f"{label}@sha1:{commit}"
        return Revision(revision, commit, replace(desired, revision=revision), files)

    async def _tree(self, commit: str) -> Path:
        """The files of a commit, in a directory of their own."""
        place = self._trees / commit
        if not place.is_dir():
            beside = self._trees / f".{commit}"
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True, mode=0o700)
            index = {"GIT_INDEX_FILE": str(beside) + ".index"}
            try:
                await self._git("read-tree", commit, more=index)
                prefix = ("--work-tree", str(beside), "-c", "core.bare=false")
                await self._git(*prefix, "checkout-index", "--all", "--force", more=index)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(index["GIT_INDEX_FILE"])
            beside.rename(place)
        os.utime(place)
        old = sorted((p for p in self._trees.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime_ns)
        for each in old[:-_KEPT]:
            shutil.rmtree(each, ignore_errors=True)
        return place

    # -- git -----------------------------------------------------------------------------------------------------

    async def _git(
        self, *words: str, at: Path | None = Path(), more: dict[str, str] | None = None, seconds: float = _LOCAL
    ) -> str:
        """What git prints. Raises SourceError(fetch-failed) with what it complains of."""
        where = () if at is None else ("--git-dir", str(self._mirror))
        argv = ("git", *where, *_SAFE, *words)
        try:
            if self._own_ssh is None:
                asked = ("git", "config", "--get", "core.sshCommand")
                self._own_ssh = (await _run(asked, _environment(True), _LOCAL))[0] == 0
            code, out, err = await _run(argv, {**_environment(self._own_ssh), **(more or {})}, seconds)
        except FileNotFoundError:
            raise SourceError("git is not on the PATH", code="git-missing", remedy="install git") from None
        except TimeoutError:
            raise SourceError(
                f"{self.name}: git did not answer within {seconds:g} s", code="fetch-failed",
                remedy=f"try by hand: git ls-remote {self._url.shown_url}",
            ) from None  # fmt: skip
        if code:
            raise SourceError(
                f"{self.name}: {_complaint(err, self._url)}", code="fetch-failed",
                remedy=f"try by hand: git ls-remote {self._url.shown_url}",
            )  # fmt: skip
        return out


def _names(out: str) -> list[str]:
    return [line.partition("\t")[2] for line in out.splitlines()]


def _complaint(err: str, url: GitUrl) -> str:
    """The line of git's errors that says most, without the credentials of a URL."""
    lines = [line.strip() for line in err.replace(url.url, url.shown_url).splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines
    text = fatal[0].partition(": ")[2] if fatal else "it failed without a word"
    return "".join(c if c.isprintable() else " " for c in text)[:300]


def _environment(own_ssh: bool) -> dict[str, str]:
    """The user's, without what would lead git elsewhere, and without questions."""
    kept = {key: value for key, value in os.environ.items() if not re.fullmatch(
        r"GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|ALTERNATE_OBJECT_DIRECTORIES|NAMESPACE|EXTERNAL_DIFF)", key
    )}  # fmt: skip
    kept |= {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    if not own_ssh and not kept.keys() & {"GIT_SSH_COMMAND", "GIT_SSH"}:
        kept["GIT_SSH_COMMAND"] = "ssh -oBatchMode=yes -oConnectTimeout=15"
    return kept


async def _run(argv: Sequence[str], env: dict[str, str], seconds: float) -> tuple[int, str, str]:
    """Exit code, output, errors. What it started ends with it, also when we are cancelled."""
    process = await asyncio.create_subprocess_exec(
        *argv, env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return process.returncode or 0, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
