"""Whether commits bear good SSH signatures of those who may sign. Only keys of the allowed signers file count.

`head`: the commit in question, or the annotated tag that names it where that tag is signed.
`strict`: also every commit since the last one of this ref that was verified; the first time that is the head only.
"""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reconciler.core.location import Verify
from reconciler.core.observed import clean
from reconciler.errors import SourceError
from reconciler.sources._mirror import FETCHED, FULL, Mirror

_NO = "/bin/false"  # a good OpenPGP signature of whoever is in the user's keyring does not count
_ENOUGH = 20  # commits between two looks, mostly


@dataclass(frozen=True)
class Tip:
    """What a ref names: `ref` as git writes it in full, `witness` the object there (a tag or the commit itself)."""

    ref: str
    witness: str
    commit: str

    @property
    def is_tag(self) -> bool:
        """Whether an annotated tag stands between the ref and the commit."""
        return self.witness != self.commit


class Signatures:
    """Checks by one allowed signers file. Every method raises SourceError(verify-failed), naming commit and reason."""

    def __init__(self, mirror: Mirror, allowed_signers: str, mode: Verify, following: str) -> None:
        """`following` is what is followed, as the user wrote it: the last verified commit is remembered for it."""
        self._mirror = mirror
        self._memory = mirror.verified_file(following)
        self._file = allowed_signers
        self._mode = mode
        self._config = [
            part
            for pair in (
                "gpg.format=ssh", f"gpg.ssh.allowedSignersFile={allowed_signers}", "gpg.minTrustLevel=fully",
                "gpg.ssh.program=ssh-keygen", f"gpg.program={_NO}", f"gpg.openpgp.program={_NO}",
                f"gpg.x509.program={_NO}",
            )
            for part in ("-c", pair)
        ]  # fmt: skip

    async def check(self, tip: Tip) -> None:
        """The head of a ref, by the mode; a later check begins where this one succeeded."""
        await self.check_head(tip)
        if self._mode == "strict" and tip.ref:
            last = self._last()
            if last and last != tip.commit:
                await self._check_since(last, tip)
            self._remember(tip)

    async def check_head(self, tip: Tip) -> None:
        """The commit, or the tag where it is signed; then the tag must also be about this very name."""
        if tip.is_tag and await self._is_signed(tip.witness):
            await self._good("verify-tag", tip.witness, tip.commit)
            name = await self._tag_name(tip.witness)
            # Else a good tag of an old version could be shown as a new one.
            if tip.ref and f"refs/tags/{name}" != tip.ref:
                reason = f"its tag was signed as `{clean(name, 100)}`, not as `{tip.ref.removeprefix('refs/tags/')}`"
                raise _refused(tip.commit, reason)
        else:
            await self._good("verify-commit", tip.commit, tip.commit)

    async def _check_since(self, last: str, tip: Tip) -> None:
        """Every commit between. What is refused on a part of the history is looked at again on all of it."""
        await self._deepen(tip, _ENOUGH)
        try:
            return await self._walk(last, tip)
        except SourceError:
            if not self._mirror.shallow():
                raise
        await self._deepen(tip, FULL)
        return await self._walk(last, tip)

    async def _deepen(self, tip: Tip, depth: int) -> None:
        if not await self._mirror.fetch(f"+{tip.commit}:{FETCHED}", depth=depth, length=len(tip.commit)):
            await self._mirror.fetch(f"+{tip.ref}:{FETCHED}", depth=FULL, length=len(tip.commit))

    async def _walk(self, last: str, tip: Tip) -> None:
        if (await self._mirror.git("merge-base", "--is-ancestor", last, tip.commit)).code != 0:
            raise _refused(
                tip.commit,
                f"it does not descend from {last}, the last verified one: the history was rewritten",
                f"if it is meant: remove {self._memory}",
            )
        listed = await self._mirror.git("rev-list", "--reverse", f"{last}..{tip.commit}")
        commits = listed.out.split()
        if listed.code != 0 or not commits or not self._mirror.shallow().isdisjoint(commits):
            raise _refused(tip.commit, f"the commits since {last} are not all there")
        for commit in commits:
            if commit != tip.commit:  # verified already, perhaps by its tag
                await self._good("verify-commit", commit, tip.commit)

    async def _is_signed(self, tag: str) -> bool:
        shown = await self._mirror.git("cat-file", "tag", tag)
        return "-----BEGIN " in shown.out

    async def _tag_name(self, tag: str) -> str:
        shown = await self._mirror.git("cat-file", "tag", tag)
        found = re.search(r"^tag (.*)$", shown.out.partition("\n\n")[0], re.MULTILINE)
        return found[1] if found else ""

    async def _good(self, verb: str, thing: str, head: str) -> None:
        if not os.path.isfile(self._file):  # noqa: ASYNC240 - one stat
            raise _refused(thing, f"there is no allowed signers file {self._file}", head=head)
        ran = await self._mirror.git(*self._config, verb, thing)
        if ran.code != 0:
            said = "; ".join(clean(line.strip(), 200) for line in ran.err.splitlines() if line.strip())
            raise _refused(thing, said or "it bears no signature", head=head)

    def _last(self) -> str:
        try:
            return self._memory.read_text().strip()
        except FileNotFoundError:
            return ""

    def _remember(self, tip: Tip) -> None:
        self._memory.parent.mkdir(exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=self._memory.parent, delete=False) as new:
            new.write(tip.commit + "\n")
            new.flush()
            os.fsync(new.fileno())
        Path(new.name).rename(self._memory)


def _refused(thing: str, reason: str, remedy: str = "", *, head: str = "") -> SourceError:
    return SourceError(
        f"commit {thing} is not verified: {reason}",
        code="verify-failed",
        remedy=remedy or "have it signed by a key of the allowed signers file, or add the key there",
        revision=head or thing,
    )
