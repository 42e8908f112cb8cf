"""Specs from git: which commit is taken, what of it is read, whose signatures count."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import SourceError, SpecError
from reconciler.sources import open_source
from reconciler.sources.git import GitSource
from tests.sources.repository import FLEET, Repository


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path)
    before = dict(os.environ)
    os.environ.update(made.env)
    yield made
    os.environ.clear()
    os.environ.update(before)


def source(repository: Repository, tmp_path: Path, query: str = "", **options: str) -> GitSource:
    """The repository as a source."""
    made = open_source(
        repository.url + query, verify=options.get("verify"), allowed_signers=options.get("allowed_signers"),
        state=tmp_path / "state",
    )  # fmt: skip
    assert isinstance(made, GitSource)
    return made


async def test_the_head_of_the_default_branch_is_taken_and_again_when_it_moves(
    repository: Repository, tmp_path: Path
) -> None:
    first = repository.commit({"specs/fleet.toml": FLEET})
    made = source(repository, tmp_path)
    found = await made.read()
    assert (found.id, found.commit, found.files) == (f"main@sha1:{first}", first, 1)
    assert found.desired.revision == found.id
    assert await made.read() is found
    second = repository.commit({"specs/more.toml": '[sessions.b]\nagent = "shell"\nargs = ["x"]\n'})
    assert (await made.read()).commit == second
    assert set((await made.read()).desired.sessions) == {"api", "b"}


async def test_a_branch_a_tag_a_range_and_a_commit_can_be_followed(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit({"specs/fleet.toml": FLEET})
    repository.git("tag", "v1.0.0")
    second = repository.commit({"specs/fleet.toml": FLEET + 'labels = { x = "1" }\n'})
    repository.git("tag", "-a", "-m", "annotated", "v1.1.0")
    repository.git("branch", "next")
    third = repository.commit({"specs/fleet.toml": FLEET + 'labels = { x = "2" }\n'})
    wanted = {
        "branch:next": second, "branch:main": third, "main": third, "tag:v1.0.0": first, "tag:v1.1.0": second,
        "semver:^1": second, "semver:<1.1": first, f"commit:{first}": first,
    }  # fmt: skip
    for number, (ref, commit) in enumerate(wanted.items()):
        made = source(repository, tmp_path / str(number), f"?ref={ref}")
        assert (await made.read()).commit == commit, ref


async def test_the_history_is_not_fetched_and_old_trees_go(repository: Repository, tmp_path: Path) -> None:
    for number in range(6):
        repository.commit({"specs/fleet.toml": FLEET + f'labels = {{ x = "{number}" }}\n'})
        made = source(repository, tmp_path)
        await made.read()
    trees = [path for path in (tmp_path / "state/trees").iterdir() if path.is_dir()]
    assert len(trees) == 3
    fresh = source(repository, tmp_path / "fresh")
    await fresh.read()
    mirror = tmp_path / "fresh/state/mirror.git"
    assert (mirror / "shallow").read_text().strip() == (await fresh.read()).commit


async def test_an_older_commit_is_recalled_without_the_repository(repository: Repository, tmp_path: Path) -> None:
    first = repository.commit({"specs/fleet.toml": FLEET})
    made = source(repository, tmp_path)
    await made.read()
    repository.path.rename(tmp_path / "away")
    again = source(repository, tmp_path)
    with pytest.raises(SourceError) as error:
        await again.read()
    assert error.value.code == "fetch-failed"
    recalled = await again.recall(first)
    assert recalled is not None
    assert set(recalled.desired.sessions) == {"api"}
    assert await again.recall("0" * 40) is None


async def test_errors_name_files_as_they_are_called_in_the_repository(repository: Repository, tmp_path: Path) -> None:
    repository.commit({"deploy/specs/fleet.toml": FLEET.replace("agent", "agnet")})
    with pytest.raises(SpecError) as error:
        await source(repository, tmp_path, "?path=deploy/specs").read()
    assert "deploy/specs/fleet.toml:3" in str(error.value.diagnostics[0])
    assert str(tmp_path) not in str(error.value.diagnostics[0])
    with pytest.raises(SourceError) as missing:
        await source(repository, tmp_path, "?path=elsewhere").read()
    assert missing.value.code == "path-missing"


async def test_neither_links_nor_paths_lead_out_of_the_repository(repository: Repository, tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("a secret", encoding="utf-8")
    (repository.path / "specs").mkdir()
    (repository.path / "specs/link.md").symlink_to(secret)
    (repository.path / "specs/link.toml").symlink_to(tmp_path / "other.toml")
    for name in ("link.md", "../../../../../../../../../../.." + str(secret), str(secret)):
        repository.commit({"specs/fleet.toml": f'{FLEET}prompt_file = "{name}"\n'})
        with pytest.raises(SpecError) as error:
            await source(repository, tmp_path).read()
        assert "a secret" not in "".join(map(str, error.value.diagnostics))
    (repository.path / "specs/link.toml").unlink()
    repository.commit({"specs/fleet.toml": f'{FLEET}prompt_file = "link.md"\n'})
    found = await source(repository, tmp_path).read()
    assert found.desired.prompts["api"] == str(secret)  # the link's own text, as a file


async def test_hooks_and_filters_of_a_repository_are_never_run(repository: Repository, tmp_path: Path) -> None:
    mark = tmp_path / "was-run"
    hook = repository.path / ".git/hooks/post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n", encoding="utf-8")
    hook.chmod(0o755)
    repository.commit({
        "specs/fleet.toml": FLEET, ".gitattributes": "*.toml filter=evil\n",
        ".gitmodules": f'[submodule "x"]\npath = x\nurl = ext::sh -c "touch {mark}"\n',
    })  # fmt: skip
    assert (await source(repository, tmp_path).read()).files == 1
    assert not mark.exists()


# -- signatures ------------------------------------------------------------------------------------------------------


async def test_only_commits_of_allowed_signers_are_taken(repository: Repository, tmp_path: Path) -> None:
    signers = str(repository.sign_with("ann"))
    repository.commit({"specs/fleet.toml": FLEET})
    made = source(repository, tmp_path, verify="head", allowed_signers=signers)
    with pytest.raises(SourceError) as unsigned:
        await made.read()
    assert unsigned.value.code == "verify-failed"
    assert "has no SSH signature" in unsigned.value.message
    signed = repository.commit({"specs/a.toml": ""}, "-S")
    assert (await made.read()).commit == signed
    repository.sign_with("mallory")
    forged = repository.commit({"specs/b.toml": ""}, "-S")
    with pytest.raises(SourceError) as foreign:
        await made.read()
    assert foreign.value.code == "verify-failed"
    assert forged[:12] in foreign.value.message


async def test_a_signed_tag_counts_for_its_commit(repository: Repository, tmp_path: Path) -> None:
    signers = str(repository.sign_with("ann"))
    commit = repository.commit({"specs/fleet.toml": FLEET})
    repository.git("tag", "-s", "-m", "release", "v1.0.0")
    made = source(repository, tmp_path, "?ref=semver:*", verify="head", allowed_signers=signers)
    assert (await made.read()).commit == commit


async def test_strict_wants_every_commit_since_the_last_one_signed_and_no_other_history(
    repository: Repository, tmp_path: Path
) -> None:
    signers = str(repository.sign_with("ann"))
    first = repository.commit({"specs/fleet.toml": FLEET}, "-S")
    made = source(repository, tmp_path, verify="strict", allowed_signers=signers)
    assert (await made.read()).commit == first
    repository.commit({"specs/a.toml": ""})
    repository.commit({"specs/b.toml": ""}, "-S")
    with pytest.raises(SourceError) as between:
        await made.read()
    assert "has no SSH signature" in between.value.message
    repository.git("reset", "-q", "--hard", first)
    repository.commit({"specs/c.toml": ""}, "-S")
    assert (await made.read()).files == 2
    repository.git("checkout", "-q", "--orphan", "other")
    repository.commit({"specs/d.toml": ""}, "-S")
    repository.git("branch", "-M", "main")
    with pytest.raises(SourceError) as rewritten:
        await made.read()
    assert "does not descend" in rewritten.value.message


# -- what a person writes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "git+ext://sh", "git+file:///x?ref=branch:--upload-pack=x", "git+file:///x?ref=branch:a..b",
        "git+ssh://-oProxyCommand=x/y", "git+https:///x", "git+file:///x?path=../y", "git+file:///x?what=1",
        "git+file:///x?ref=semver:one", "git+file:///x?ref=commit:main", "git+file:///x?verify=head",
        "git+file:///x?verify=maybe&allowed_signers=/etc/hosts", "git+https://host/-x", "git+file:///x\n?ref=main",
        "git+file:///x?ref=a&ref=b",
    ],
)  # fmt: skip
def test_what_is_no_repository_is_refused_before_git_is_called(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as error:
        open_source(text, state=tmp_path)
    assert error.value.code == "bad-url"
    assert error.value.remedy


def test_credentials_of_a_url_are_never_shown(tmp_path: Path) -> None:
    made = open_source("git+https://ann:s3cret@example.com/fleet.git?ref=main", state=tmp_path)
    assert made.name == "git+https://example.com/fleet.git?ref=main"
    with pytest.raises(SourceError) as error:
        open_source("git+https://ann:s3cret@example.com/fleet.git?ref=..", state=tmp_path)
    assert "s3cret" not in error.value.message


def test_signatures_are_for_git(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        open_source(str(tmp_path), verify="head", allowed_signers="/etc/hosts", state=tmp_path)
