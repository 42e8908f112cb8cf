"""Following git: refs, folders, history, what a repository may try, and what outlives a killed git."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from reconciler.core.diagnostics import Diagnostic
from reconciler.errors import SourceError, SpecError
from reconciler.sources import Revision, open_source
from tests.sources.repositories import ENV, Repository, session


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(key, ENV[key])
    return Repository(tmp_path / "fleet")


def commits(mirror: Path) -> list[str]:
    argv = ["git", f"--git-dir={mirror}", "rev-list", "--all"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


async def read(url: str, tmp_path: Path) -> Revision:
    return await open_source(url, state=tmp_path / "state").read()


async def refused(url: str, tmp_path: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        await read(url, tmp_path)
    return caught.value


def mirrors(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "state" / "sources").iterdir())


class TestRefs:
    async def test_by_default_it_is_the_branch_that_the_remote_names(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        commit = repository.commit({"a.toml": session("a")})
        found = await read(repository.url, tmp_path)
        assert (found.id, found.commit, found.author) == (f"main@sha1:{commit}", commit, "a <a@example.com>")
        repository.git("branch", "--move", "main", "trunk")
        assert (await read(repository.url, tmp_path)).id == f"trunk@sha1:{commit}"

    async def test_each_kind_of_ref(self, repository: Repository, tmp_path: Path) -> None:
        one = repository.commit({"a.toml": session("one")})
        repository.git("tag", "v1.0.0")
        two = repository.commit({"a.toml": session("two")})
        repository.tag("v1.1.0")
        repository.git("branch", "side/x")
        three = repository.commit({"a.toml": session("three")})
        repository.git("tag", "v2.0.0-rc.1")
        url = repository.url
        assert (await read(f"{url}?ref=branch:side/x", tmp_path)).id == f"side/x@sha1:{two}"
        assert (await read(f"{url}?ref=tag:v1.0.0", tmp_path)).id == f"v1.0.0@sha1:{one}"
        assert (await read(f"{url}?ref=tag:v1.1.0", tmp_path)).id == f"v1.1.0@sha1:{two}"
        assert (await read(f"{url}?ref=semver:>=1.0", tmp_path)).id == f"v1.1.0@sha1:{two}"
        assert (await read(f"{url}?ref=semver:>=1.0.0-0", tmp_path)).id == f"v2.0.0-rc.1@sha1:{three}"
        assert (await read(f"{url}?ref=commit:{one}", tmp_path)).id == f"sha1:{one}"

    async def test_a_branch_is_not_the_tag_of_the_same_name(self, repository: Repository, tmp_path: Path) -> None:
        one = repository.commit({"a.toml": session("one")})
        repository.git("tag", "same")
        two = repository.commit({"a.toml": session("two")})
        repository.git("branch", "same")
        assert (await read(f"{repository.url}?ref=branch:same", tmp_path)).commit == two
        assert (await read(f"{repository.url}?ref=tag:same", tmp_path)).commit == one

    @pytest.mark.parametrize("ref", ["branch:none", "tag:none", "semver:^9", "commit:" + "0" * 40, "branch:ain"])
    async def test_what_is_not_there_is_named(self, repository: Repository, tmp_path: Path, ref: str) -> None:
        repository.commit({"a.toml": session("a")})
        error = await refused(f"{repository.url}?ref={ref}", tmp_path)
        assert error.code == "ref-not-found"
        assert ref.partition(":")[2] in error.message

    async def test_a_repository_without_a_commit_has_no_specs(self, repository: Repository, tmp_path: Path) -> None:
        assert (await refused(repository.url, tmp_path)).code == "ref-not-found"

    async def test_a_tag_of_a_file_is_no_commit(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        repository.git("tag", "blob", "HEAD:a.toml")
        assert (await refused(f"{repository.url}?ref=tag:blob", tmp_path)).code == "ref-not-found"

    async def test_an_old_commit_is_found_where_the_server_gives_out_only_tips(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = tmp_path / "gitconfig"
        config.write_text("[protocol]\nversion = 0\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        old = repository.commit({"a.toml": session("old")})
        for number in range(3):
            repository.commit({"a.toml": session(f"new{number}")})
        await read(repository.url, tmp_path)  # the mirror is shallow now
        found = await read(f"{repository.url}?ref=commit:{old}", tmp_path)
        assert set(found.desired.sessions) == {"old"}

    async def test_a_force_push_is_followed_where_nothing_is_verified(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        source = open_source(repository.url, state=tmp_path / "state")
        first = repository.commit({"a.toml": session("a")})
        repository.commit({"a.toml": session("b")})
        assert set((await source.read()).desired.sessions) == {"b"}
        repository.git("reset", "--quiet", "--hard", first)
        repository.commit({"a.toml": session("c")})
        assert set((await source.read()).desired.sessions) == {"c"}


class TestFolders:
    async def test_by_default_it_is_specs_where_that_exists(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("top")})
        assert set((await read(repository.url, tmp_path)).desired.sessions) == {"top"}
        repository.commit({"specs/a.toml": session("below")})
        assert set((await read(repository.url, tmp_path)).desired.sessions) == {"below"}
        assert set((await read(f"{repository.url}?path=.", tmp_path)).desired.sessions) == {"top", "below"}

    async def test_a_folder_that_is_not_there_is_named(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        error = await refused(f"{repository.url}?path=env/prod", tmp_path)
        assert (error.code, "env/prod" in error.message) == ("path-missing", True)

    async def test_diagnostics_name_files_as_in_the_repository(self, repository: Repository, tmp_path: Path) -> None:
        commit = repository.commit({"specs/x/a.toml": session("a", "nonsense = 1\n")})
        with pytest.raises(SpecError) as caught:
            await read(repository.url, tmp_path)
        (found,) = caught.value.diagnostics
        assert isinstance(found, Diagnostic)
        assert (found.file, found.line, caught.value.revision) == ("specs/x/a.toml", 3, f"main@sha1:{commit}")


class TestHostileTrees:
    @pytest.mark.parametrize("prompt", ["../../../../../../../etc/passwd", "/etc/passwd", "~/.profile", "../../out.md"])
    async def test_a_prompt_file_does_not_leave_the_repository(
        self, repository: Repository, tmp_path: Path, prompt: str
    ) -> None:
        repository.commit({"specs/a.toml": session("a", f'prompt_file = "{prompt}"\n')})
        with pytest.raises(SpecError, match="not valid") as caught:
            await read(repository.url, tmp_path)
        assert "outside of the repository" in str(caught.value.diagnostics[0])

    async def test_a_prompt_file_beside_the_folder_is_inside(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"specs/a.toml": session("a", 'prompt_file = "../p.md"\n'), "p.md": "hi"})
        assert (await read(repository.url, tmp_path)).desired.prompts == {"a": "hi"}

    async def test_a_link_leads_nowhere(self, repository: Repository, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_text("secret")
        (repository.directory / "p.md").symlink_to(secret)
        repository.commit({"a.toml": session("a", 'prompt_file = "p.md"\n')})
        assert (await read(repository.url, tmp_path)).desired.prompts == {"a": str(secret)}

    async def test_no_hook_filter_or_submodule_runs(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ran = tmp_path / "ran"
        hooks = tmp_path / "hooks"
        hooks.mkdir()
        for name in ("post-checkout", "reference-transaction", "post-index-change"):
            (hooks / name).write_text(f"#!/bin/sh\ntouch {ran}\n")
            (hooks / name).chmod(0o755)
        config = tmp_path / "gitconfig"
        config.write_text(
            f'[core]\nhooksPath = {hooks}\n[filter "evil"]\nsmudge = "touch {ran}; cat"\nrequired = true\n'
            f'[filter "lfs"]\nsmudge = "touch {ran}; cat"\nrequired = true\n'
        )
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
        repository.commit({
            "a.toml": session("a", 'prompt_file = "p.md"\n'), "p.md": "one\ntwo\n", "q.md": "x",
            ".gitattributes": "p.md filter=evil text eol=crlf\nq.md filter=lfs\n",
            ".gitmodules": '[submodule "s"]\npath = s\nurl = ./x\n',
        })  # fmt: skip
        assert (await read(repository.url, tmp_path)).desired.prompts == {"a": "one\ntwo\n"}
        assert not ran.exists()

    async def test_the_environment_of_a_hook_does_not_lead_git_astray(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        repository.commit({"a.toml": session("a")})
        for key in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
            monkeypatch.setenv(key, str(tmp_path / "elsewhere"))
        assert set((await read(repository.url, tmp_path)).desired.sessions) == {"a"}
        assert not (tmp_path / "elsewhere").exists()


class TestWhatIsKept:
    async def test_only_the_owner_may_look_into_it(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        await read(repository.url, tmp_path)
        (mirror,) = mirrors(tmp_path)
        assert stat.S_IMODE(mirror.stat().st_mode) == stat.S_IMODE(mirror.parent.stat().st_mode) == 0o700

    async def test_the_newest_trees_and_those_that_are_held_stay(self, repository: Repository, tmp_path: Path) -> None:
        source = open_source(repository.url, state=tmp_path / "state")
        commits = []
        for number in range(7):
            commits.append(repository.commit({"a.toml": session(f"a{number}")}))
            source.hold(frozenset(commits[:1]))
            await source.read()
        (mirror,) = mirrors(tmp_path)
        assert {tree.name for tree in (mirror / "trees").iterdir()} == {commits[0], *commits[-3:]}
        with repository.away():
            first = await source.recall(commits[0])
            assert first is not None
            assert set(first.desired.sessions) == {"a0"}
            assert await source.recall("0" * 40) is None

    async def test_a_commit_that_is_not_here_is_fetched_when_it_is_asked_for(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        source = open_source(repository.url, state=tmp_path / "state")
        old = repository.commit({"a.toml": session("old")})
        repository.commit({"a.toml": session("new")})
        await source.read()
        assert await source.recall(old) is None
        found = await source.recall(old, fetch=True)
        assert found is not None
        assert (set(found.desired.sessions), found.id) == ({"old"}, f"sha1:{old}")

    async def test_only_the_newest_commit_is_fetched(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        head = repository.commit({"a.toml": session("b")})
        await read(repository.url, tmp_path)
        (mirror,) = mirrors(tmp_path)
        assert commits(mirror / "mirror.git") == [head]

    async def test_locks_of_a_git_that_was_killed_are_cleared_away(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        repository.commit({"a.toml": session("a")})
        await read(repository.url, tmp_path)
        (mirror,) = mirrors(tmp_path)
        for name in ("shallow.lock", "packed-refs.lock", "config.lock", "refs/reconciler/fetched.lock"):
            (mirror / "mirror.git" / name).touch()
            os.utime(mirror / "mirror.git" / name, (0, 0))
        (mirror / "trees" / ".new-x").mkdir()
        repository.commit({"a.toml": session("b")})
        assert set((await read(repository.url, tmp_path)).desired.sessions) == {"b"}
        assert not (mirror / "trees" / ".new-x").exists()

    async def test_a_damaged_mirror_is_made_anew(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        await read(repository.url, tmp_path)
        (mirror,) = mirrors(tmp_path)
        for file in (mirror / "mirror.git" / "objects").rglob("*"):
            if file.is_file():
                file.chmod(0o600)
                file.write_bytes(b"")
        repository.commit({"b.toml": session("b")})
        assert set((await read(repository.url, tmp_path)).desired.sessions) == {"a", "b"}

    async def test_a_commit_that_lost_its_files_is_fetched_anew(self, repository: Repository, tmp_path: Path) -> None:
        commit = repository.commit({"a.toml": session("a")})
        await read(repository.url, tmp_path)
        (mirror,) = mirrors(tmp_path)
        shutil.rmtree(mirror / "trees")
        for file in (mirror / "mirror.git" / "objects").rglob("*"):
            if file.is_file() and file.parent.name + file.name != commit:
                file.unlink()
        assert (await refused(repository.url, tmp_path)).code == "fetch-failed"
        assert set((await read(repository.url, tmp_path)).desired.sessions) == {"a"}

    async def test_many_that_share_a_mirror_wait_for_each_other(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        for number in range(4):
            repository.git("branch", f"b{number}")
        urls = [f"{repository.url}?ref=branch:b{number}" for number in range(4)]
        found = await asyncio.gather(*(read(url, tmp_path) for url in urls))
        assert [revision.id.partition("@")[0] for revision in found] == ["b0", "b1", "b2", "b3"]
        assert len(mirrors(tmp_path)) == 1


def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "git").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


class TestFailures:
    async def test_a_server_that_does_not_answer_is_named_with_the_reason(self, tmp_path: Path) -> None:
        error = await refused(f"git+file://{tmp_path}/none", tmp_path)
        assert (error.code, error.retry) == ("fetch-failed", True)
        assert "does not appear to be a git repository" in error.message

    async def test_no_git_is_named_with_what_to_do(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        error = await refused(repository.url, tmp_path)
        assert (error.code, error.remedy) == ("git-missing", "install git")

    async def test_what_a_server_says_is_shown_without_control_characters(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_git(tmp_path, monkeypatch, "printf 'fatal: \\033[2Jboo\\n' >&2; exit 128")
        error = await refused(repository.url, tmp_path)
        assert error.message.isprintable()
        assert "boo" in error.message

    async def test_a_read_that_is_cancelled_leaves_no_process(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pids = tmp_path / "pids"
        fake_git(tmp_path, monkeypatch, f'sleep 60 & echo "$$ $!" > {pids}.new; mv {pids}.new {pids}; wait')
        reading = asyncio.create_task(read(repository.url, tmp_path))
        while not pids.exists():  # noqa: ASYNC110 - the event is a file
            await asyncio.sleep(0.01)
        found = [int(pid) for pid in pids.read_text().split()]
        assert all(runs(pid) for pid in found)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.sleep(0.05)
        assert [pid for pid in found if runs(pid)] == []

    async def test_whoever_works_on_the_mirror_is_waited_for(self, repository: Repository, tmp_path: Path) -> None:
        repository.commit({"a.toml": session("a")})
        await read(repository.url, tmp_path)
        (mirror,) = mirrors(tmp_path)
        with (mirror / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            reading = asyncio.create_task(read(repository.url, tmp_path))
            await asyncio.wait([reading], timeout=0.3)
            assert not reading.done()
        assert set((await reading).desired.sessions) == {"a"}

    async def test_what_git_leaves_running_is_not_waited_for(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pid = tmp_path / "pid"
        # As the master of a shared SSH connection does: it stays, and keeps stderr open.
        monkeypatch.setenv("GIT_SSH_COMMAND", "ssh")  # else git is asked for it first
        fake_git(tmp_path, monkeypatch, f"setsid sleep 60 & echo $! > {pid}; echo 'fatal: no' >&2; exit 128")
        try:
            async with asyncio.timeout(20):
                assert "fatal: no" in (await refused(repository.url, tmp_path)).message
        finally:
            os.kill(int(pid.read_text()), signal.SIGKILL)

    async def test_a_disk_that_cannot_be_written_is_a_source_error(
        self, repository: Repository, tmp_path: Path
    ) -> None:
        (tmp_path / "state").write_text("a file")
        assert (await refused(repository.url, tmp_path)).code == "fetch-failed"

    async def test_a_password_is_in_no_argument_of_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = tmp_path / "seen"
        fake_git(tmp_path, monkeypatch, f'echo "$@" >> {seen}; echo "$RECONCILER_GIT_PASS" >> {seen}.env; exit 1')
        error = await refused("https://me:s3cret@127.0.0.1:9/r.git", tmp_path)
        assert "s3cret" not in seen.read_text() + error.message
        assert "s3cret" in (tmp_path / "seen.env").read_text()
        assert "s3cret" not in "".join(str(path) for path in (tmp_path / "state").rglob("*"))

    async def test_git_never_asks(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = tmp_path / "seen"
        fake_git(tmp_path, monkeypatch, f"env > {seen}; exit 1")
        await refused(repository.url, tmp_path)
        assert {"GIT_TERMINAL_PROMPT=0", "GIT_SSH_COMMAND=ssh -o BatchMode=yes"} <= set(seen.read_text().splitlines())

    async def test_how_the_user_runs_ssh_stands(
        self, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen = tmp_path / "seen"
        fake_git(tmp_path, monkeypatch, f"env > {seen}; exit 1")
        monkeypatch.setenv("GIT_SSH_COMMAND", "mine")
        await refused(repository.url, tmp_path)
        assert "GIT_SSH_COMMAND=mine" in seen.read_text().splitlines()
