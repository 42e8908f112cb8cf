"""Only what those sign who may sign: heads, tags, and every commit in between."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.errors import SourceError
from reconciler.sources import Revision, Source, open_source
from tests.sources.repositories import ENV, Repository, allow, make_key, session


@dataclass
class Signed:
    """A repository, a key that may sign, one that may not, and where both are known."""

    root: Path
    repository: Repository
    good: Path
    bad: Path
    signers: Path

    def source(self, verify: str, ref: str = "") -> Source:
        url = self.repository.url + (f"?ref={ref}" if ref else "")
        return open_source(url, verify=verify, allowed_signers=str(self.signers), state=self.root / "state")

    async def read(self, verify: str = "head", ref: str = "") -> Revision:
        return await self.source(verify, ref).read()

    async def refused(self, verify: str = "head", ref: str = "") -> SourceError:
        with pytest.raises(SourceError) as caught:
            await self.read(verify, ref)
        assert (caught.value.code, caught.value.exit_code) == ("verify-failed", 7)
        return caught.value

    def commit(self, name: str, key: Path | None) -> str:
        return self.repository.commit({"a.toml": session(name)}, key=key)


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(key, ENV[key])
    good, bad = make_key(tmp_path, "good"), make_key(tmp_path, "bad")
    return Signed(tmp_path, Repository(tmp_path / "fleet"), good, bad, allow(tmp_path / "signers", good))


class TestHead:
    async def test_a_commit_of_an_allowed_signer_is_taken(self, signed: Signed) -> None:
        commit = signed.commit("a", signed.good)
        assert (await signed.read()).commit == commit

    async def test_a_commit_of_somebody_else_is_refused_and_named(self, signed: Signed) -> None:
        commit = signed.commit("a", signed.bad)
        error = await signed.refused()
        assert commit in error.message
        assert "No principal matched" in error.message
        assert error.revision == f"main@sha1:{commit}"

    async def test_a_commit_without_a_signature_is_refused(self, signed: Signed) -> None:
        commit = signed.commit("a", None)
        assert f"commit {commit} is not verified: it bears no signature" in (await signed.refused()).message

    async def test_only_the_head_counts(self, signed: Signed) -> None:
        signed.commit("a", None)
        head = signed.commit("b", signed.good)
        assert (await signed.read()).commit == head

    async def test_a_key_that_was_taken_out_of_the_file_counts_no_more(self, signed: Signed) -> None:
        commit = signed.commit("a", signed.good)
        source = signed.source("head")
        await source.read()
        allow(signed.signers, signed.bad)
        with pytest.raises(SourceError, match="not verified"):
            await source.read()
        assert await source.recall(commit) is None
        signed.signers.unlink()
        with pytest.raises(SourceError, match="no allowed signers file"):
            await source.read()

    async def test_a_file_in_the_repository_says_nothing_about_who_may_sign(self, signed: Signed) -> None:
        allow(signed.repository.directory / "signers", signed.bad)
        signed.commit("a", signed.bad)
        await signed.refused()

    async def test_a_signature_of_another_kind_counts_for_nothing_whatever_the_user_trusts(
        self, signed: Signed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program, config = signed.root / "pgp", signed.root / "gitconfig"
        program.write_text(
            '#!/bin/sh\ncat > /dev/null\ncase "$*" in\n'
            '*--verify*) echo; echo "[GNUPG:] GOODSIG 0123456789ABCDEF me"; echo "[GNUPG:] TRUST_ULTIMATE" ;;\n'
            '*) echo "-----BEGIN PGP SIGNATURE-----"; echo "-----END PGP SIGNATURE-----"\n'
            '   echo "[GNUPG:] SIG_CREATED " >&2 ;;\nesac\n'
        )
        program.chmod(0o755)
        config.write_text(f"[gpg]\nprogram = {program}\nformat = openpgp\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        git, ours = signed.repository.git, ("-c", "gpg.format=openpgp", "-c", f"gpg.program={program}")
        signed.commit("a", None)
        git(*ours, "commit", "--quiet", "--amend", "--no-edit", "-S")
        git(*ours, "verify-commit", "HEAD")
        await signed.refused()

    async def test_a_pinned_commit_has_to_verify_too(self, signed: Signed) -> None:
        old = signed.commit("a", None)
        signed.commit("b", signed.good)
        source = signed.source("head")
        await source.read()
        with pytest.raises(SourceError, match="not verified"):
            await source.recall(old, fetch=True)

    async def test_naming_who_may_sign_means_that_it_is_verified(self, signed: Signed) -> None:
        signed.commit("a", None)
        source = open_source(f"{signed.repository.url}?allowed_signers={signed.signers}", state=signed.root / "state")
        with pytest.raises(SourceError, match="not verified"):
            await source.read()

    async def test_verifying_needs_to_know_who_may_sign(self, signed: Signed) -> None:
        for options in ("?verify=head", f"?verify=head&allowed_signers={signed.root}/none"):
            with pytest.raises(SourceError) as caught:
                open_source(signed.repository.url + options, state=signed.root)
            assert caught.value.code == "bad-url"


class TestTags:
    async def test_a_signed_tag_stands_for_its_commit(self, signed: Signed) -> None:
        commit = signed.commit("a", None)
        signed.repository.tag("v1.0.0", key=signed.good)
        source = signed.source("head", "tag:v1.0.0")
        assert (await source.read()).commit == commit
        with signed.repository.away():
            assert await source.recall(commit) is not None

    async def test_a_tag_that_somebody_else_signed_is_refused_though_the_commit_is_good(self, signed: Signed) -> None:
        signed.commit("a", signed.good)
        signed.repository.tag("v1.0.0", key=signed.bad)
        await signed.refused(ref="tag:v1.0.0")

    async def test_behind_a_tag_without_a_signature_the_commit_counts(self, signed: Signed) -> None:
        signed.commit("a", None)
        signed.repository.tag("v1.0.0")
        await signed.refused(ref="tag:v1.0.0")
        signed.commit("b", signed.good)
        signed.repository.tag("v1.1.0")
        assert (await signed.read(ref="semver:^1")).id.startswith("v1.1.0@")

    async def test_a_good_tag_of_an_old_version_under_a_new_name_is_refused(self, signed: Signed) -> None:
        signed.commit("a", None)
        signed.repository.tag("v1.0.0", key=signed.good)
        signed.repository.git("update-ref", "refs/tags/v2.0.0", "refs/tags/v1.0.0")
        assert "signed as `v1.0.0`" in (await signed.refused(ref="semver:>=1")).message


class TestStrict:
    async def test_the_first_time_only_the_head_counts_and_then_every_commit(self, signed: Signed) -> None:
        signed.commit("a", None)
        signed.commit("b", signed.good)
        await signed.read("strict")
        middle = signed.commit("c", None)
        signed.commit("d", signed.good)
        assert middle in (await signed.refused("strict")).message
        assert (await signed.read("head")).desired.sessions.keys() == {"d"}
        assert middle in (await signed.refused("strict")).message

    async def test_a_history_of_good_commits_is_taken(self, signed: Signed) -> None:
        signed.commit("a", signed.good)
        await signed.read("strict")
        for name in ("b", "c", "d"):
            signed.commit(name, signed.good)
        assert set((await signed.read("strict")).desired.sessions) == {"d"}
        assert set((await signed.read("strict")).desired.sessions) == {"d"}

    async def test_a_merge_brings_in_every_commit_of_its_branch(self, signed: Signed) -> None:
        git = signed.repository.git
        signed.commit("a", signed.good)
        git("branch", "side")
        signed.commit("b", signed.good)
        await signed.read("strict")
        git("checkout", "--quiet", "side")
        smuggled = signed.repository.commit({"x.md": "x"})
        git("checkout", "--quiet", "main")
        git("-c", f"user.signingkey={signed.good}", "merge", "--quiet", "--gpg-sign", "--no-edit", "side")
        assert smuggled in (await signed.refused("strict")).message

    async def test_a_branch_that_began_before_the_last_verified_commit_is_looked_at_to_its_beginning(
        self, signed: Signed
    ) -> None:
        git = signed.repository.git
        signed.commit("a", None)
        git("branch", "side")
        signed.commit("b", signed.good)
        await signed.read("strict")
        git("checkout", "--quiet", "side")
        signed.repository.commit({"x.md": "x"}, key=signed.good)
        git("checkout", "--quiet", "main")
        git("-c", f"user.signingkey={signed.good}", "merge", "--quiet", "--gpg-sign", "--no-edit", "side")
        await signed.read("strict")

    async def test_more_commits_than_are_fetched_at_first_are_all_looked_at(self, signed: Signed) -> None:
        signed.commit("a", signed.good)
        await signed.read("strict")
        unsigned = signed.commit("b", None)
        for _ in range(21):
            signed.commit("c", signed.good)
        assert unsigned in (await signed.refused("strict")).message

    async def test_so_are_those_of_a_long_branch_that_is_merged(self, signed: Signed) -> None:
        git = signed.repository.git
        signed.commit("a", signed.good)
        git("checkout", "--quiet", "-b", "side")
        unsigned = signed.repository.commit({"x.md": "x"})
        for _ in range(21):
            signed.commit("a", signed.good)
        git("checkout", "--quiet", "main")
        signed.commit("b", signed.good)
        await signed.read("strict")
        git("-c", f"user.signingkey={signed.good}", "merge", "--quiet", "--gpg-sign", "--no-edit", "side")
        assert unsigned in (await signed.refused("strict")).message

    async def test_a_rewritten_history_is_refused_until_somebody_says_that_it_is_meant(self, signed: Signed) -> None:
        first = signed.commit("a", signed.good)
        second = signed.commit("b", signed.good)
        await signed.read("strict")
        signed.repository.git("reset", "--quiet", "--hard", first)
        signed.commit("c", signed.good)
        error = await signed.refused("strict")
        assert second in error.message
        assert "does not descend" in error.message
        Path(error.remedy.partition("remove ")[2]).unlink()  # noqa: ASYNC240 - one file
        assert set((await signed.read("strict")).desired.sessions) == {"c"}

    async def test_a_step_back_is_a_rewritten_history_too(self, signed: Signed) -> None:
        first = signed.commit("a", signed.good)
        signed.commit("b", signed.good)
        await signed.read("strict")
        signed.repository.git("reset", "--quiet", "--hard", first)
        assert "does not descend" in (await signed.refused("strict")).message

    async def test_a_mirror_that_was_lost_forgets_nothing(self, signed: Signed) -> None:
        signed.commit("a", signed.good)
        await signed.read("strict")
        (mirror,) = (signed.root / "state" / "sources").iterdir()
        (mirror / "mirror.git").rename(signed.root / "lost")
        middle = signed.commit("b", None)
        signed.commit("c", signed.good)
        assert middle in (await signed.refused("strict")).message
