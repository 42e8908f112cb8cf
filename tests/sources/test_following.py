"""The last good revision stays in force, whatever the newest one is like, and over restarts."""

from __future__ import annotations

import asyncio
import itertools
import random
from pathlib import Path

import pytest

from reconciler.errors import SourceError, UsageError
from reconciler.sources import open_source
from reconciler.sources.following import Following
from tests.sources.repositories import ENV, Repository, allow, make_key, session


class Notes:
    """A memory in a dictionary: it outlives a Following as a database would."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def recall(self, key: str) -> str | None:
        return self.kept.get(key)

    def keep(self, key: str, value: str) -> None:
        self.kept[key] = value


class Fleet:
    """A repository that is followed, by a program that may be restarted."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = Repository(root / "fleet")
        self.notes = Notes()
        self.clock = itertools.count(100.0)
        self.query = ""

    def start(self) -> Following:
        source = open_source(self.repository.url + self.query, state=self.root / "state")
        return Following(source, self.notes, now=lambda: next(self.clock))

    def commit(self, *names: str, remove: tuple[str, ...] = ()) -> str:
        files: dict[str, str | None] = {f"{name}.toml": session(name) for name in names}
        return self.repository.commit({**files, **{f"{name}.toml": None for name in remove}})


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(key, ENV[key])
    return Fleet(tmp_path)


def in_force(following: Following) -> set[str] | None:
    return set(following.good.desired.sessions) if following.good else None


def code(following: Following) -> str | None:
    return following.trouble.code if following.trouble else None


class TestGoodRevisions:
    async def test_the_first_and_every_new_one_is_in_force(self, fleet: Fleet) -> None:
        following = fleet.start()
        assert following.good is None
        fleet.commit("a")
        assert (await following.refresh(), in_force(following)) == (True, {"a"})
        assert (await following.refresh(), code(following)) == (False, None)
        commit = fleet.commit("b")
        assert (await following.refresh(), in_force(following)) == (True, {"a", "b"})
        assert following.good is not None
        assert following.good.id == following.good.desired.revision == f"main@sha1:{commit}"

    async def test_a_directory_is_followed_in_the_same_way(self, tmp_path: Path) -> None:
        (tmp_path / "a.toml").write_text(session("a"))
        following = Following(open_source(str(tmp_path), state=tmp_path), Notes(), now=lambda: 0.0)
        assert (await following.refresh(), await following.refresh()) == (True, False)
        (tmp_path / "b.toml").write_text("[")
        assert (await following.refresh(), in_force(following), code(following)) == (False, {"a"}, "invalid-spec")
        (tmp_path / "b.toml").unlink()
        assert (await following.refresh(), code(following)) == (False, None)
        await following.source.close()


class TestRefusals:
    async def test_invalid_specs_leave_the_last_good_in_force_with_every_diagnostic(self, fleet: Fleet) -> None:
        following = fleet.start()
        fleet.commit("a")
        await following.refresh()
        commit = fleet.repository.commit({"b.toml": "[", "c.toml": session("c", "x = 1\n")})
        assert (await following.refresh(), in_force(following), code(following)) == (False, {"a"}, "invalid-spec")
        assert following.trouble is not None
        assert following.trouble.attempted == f"main@sha1:{commit}"
        assert len(following.trouble.diagnostics) == 2
        fleet.repository.commit({"b.toml": None, "c.toml": None})
        assert (await following.refresh(), code(following)) == (True, None)

    async def test_specs_that_declare_nothing_are_a_mistake(self, fleet: Fleet) -> None:
        following = fleet.start()
        fleet.commit("a")
        await following.refresh()
        fleet.commit(remove=("a",))
        assert (await following.refresh(), in_force(following), code(following)) == (False, {"a"}, "empty-specs")

    async def test_a_server_that_does_not_answer_changes_nothing(self, fleet: Fleet) -> None:
        following = fleet.start()
        fleet.commit("a")
        await following.refresh()
        with fleet.repository.away():
            assert (await following.refresh(), in_force(following), code(following)) == (False, {"a"}, "fetch-failed")
        assert (await following.refresh(), code(following)) == (False, None)

    async def test_what_does_not_verify_leaves_the_last_good_in_force(self, fleet: Fleet) -> None:
        key = make_key(fleet.root, "good")
        fleet.query = f"?verify=head&allowed_signers={allow(fleet.root / 'signers', key)}"
        following = fleet.start()
        fleet.repository.commit({"a.toml": session("a")}, key=key)
        await following.refresh()
        fleet.commit("b")
        assert (await following.refresh(), in_force(following), code(following)) == (False, {"a"}, "verify-failed")

    async def test_without_a_good_revision_nothing_is_in_force(self, fleet: Fleet) -> None:
        fleet.repository.commit({"a.toml": "["})
        following = fleet.start()
        assert (await following.refresh(), following.good, code(following)) == (False, None, "invalid-spec")


class TestMassLoss:
    @pytest.mark.parametrize(
        ("before", "after", "refused"),
        [(4, 1, True), (4, 2, False), (5, 2, True), (5, 3, False), (3, 1, False), (9, 4, True)],
    )
    async def test_losing_more_than_half_of_many_files_is_refused(
        self, fleet: Fleet, before: int, after: int, refused: bool
    ) -> None:
        names = [f"s{number}" for number in range(before)]
        following = fleet.start()
        fleet.commit(*names)
        await following.refresh()
        fleet.commit(remove=tuple(names[after:]))
        assert await following.refresh() is not refused
        assert code(following) == ("mass-loss" if refused else None)
        assert in_force(following) == set(names if refused else names[:after])

    async def test_a_person_can_say_that_this_very_revision_is_meant(self, fleet: Fleet) -> None:
        following = fleet.start()
        fleet.commit("a", "b", "c", "d", "e")
        await following.refresh()
        fleet.commit(remove=("a", "b", "c", "d"))
        await following.refresh()
        assert following.trouble is not None
        following.accept("main@sha1:" + "0" * 40)
        assert not await following.refresh()
        following.accept(following.trouble.attempted)
        assert (await following.refresh(), in_force(following)) == (True, {"e"})

    async def test_it_holds_over_a_restart_of_whoever_follows_a_directory(self, tmp_path: Path) -> None:
        specs, notes = tmp_path / "specs", Notes()
        specs.mkdir()
        for name in "abcd":
            (specs / f"{name}.toml").write_text(session(name))
        first = Following(open_source(str(specs), state=tmp_path), notes, now=lambda: 0.0)
        await first.refresh()
        await first.source.close()
        for name in "abc":
            (specs / f"{name}.toml").unlink()
        second = Following(open_source(str(specs), state=tmp_path), notes, now=lambda: 0.0)
        assert (await second.refresh(), second.good, code(second)) == (False, None, "mass-loss")
        assert second.trouble is not None
        second.accept(second.trouble.attempted)
        assert (await second.refresh(), in_force(second)) == (True, {"d"})
        await second.source.close()


class TestRestart:
    async def test_with_a_server_out_of_reach_the_last_good_is_in_force_and_the_trouble_shown(
        self, fleet: Fleet
    ) -> None:
        commit = fleet.commit("a")
        await fleet.start().refresh()
        with fleet.repository.away():
            following = fleet.start()
            assert (await following.refresh(), in_force(following)) == (True, {"a"})
            assert code(following) == "fetch-failed"
            assert following.good is not None
            assert following.good.id == following.good.desired.revision == f"main@sha1:{commit}"
            assert await following.refresh() is False
        assert (await following.refresh(), code(following)) == (False, None)

    async def test_after_many_refused_revisions_the_last_good_is_still_there(self, fleet: Fleet) -> None:
        good = fleet.commit("a")
        following = fleet.start()
        await following.refresh()
        for number in range(6):
            fleet.repository.commit({"b.toml": f"[{number}"})
            await following.refresh()
        assert len(list((fleet.root / "state").glob(f"sources/*/trees/{good}"))) == 1
        again = fleet.start()
        assert (await again.refresh(), in_force(again), code(again)) == (True, {"a"}, "invalid-spec")

    async def test_what_is_remembered_of_another_source_says_nothing(self, fleet: Fleet) -> None:
        fleet.commit("a", "b", "c", "d")
        await fleet.start().refresh()
        fleet.repository.git("checkout", "--quiet", "-b", "other")
        fleet.commit(remove=("a", "b", "c"))
        fleet.query = "?ref=branch:other"
        assert await fleet.start().refresh()

    @pytest.mark.parametrize(
        "text", ["", "null", "[]", "{", '{"id": 1}', '{"id": "x", "commit": "--help", "files": 9}', "7"]
    )
    async def test_a_memory_that_holds_nonsense_is_no_memory(self, fleet: Fleet, text: str) -> None:
        fleet.commit("a")
        await fleet.start().refresh()
        (key,) = fleet.notes.kept
        fleet.notes.kept[key] = text
        following = fleet.start()
        assert (await following.refresh(), in_force(following)) == (True, {"a"})


class TestPins:
    async def test_a_pinned_commit_is_in_force_whatever_the_branch_says(self, fleet: Fleet) -> None:
        old = fleet.commit("a")
        fleet.commit("b")
        following = fleet.start()
        await following.refresh()
        following.pin(old)
        assert (await following.refresh(), in_force(following), following.pinned) == (True, {"a"}, old)
        fleet.commit("c")
        assert (await following.refresh(), in_force(following)) == (False, {"a"})
        following.unpin()
        assert (await following.refresh(), in_force(following)) == (True, {"a", "b", "c"})

    async def test_it_holds_over_a_restart_and_without_the_server(self, fleet: Fleet) -> None:
        old = fleet.commit("a")
        following = fleet.start()
        await following.refresh()
        fleet.commit("b")
        await following.refresh()
        following.pin(old)
        with fleet.repository.away():
            again = fleet.start()
            assert (await again.refresh(), in_force(again), code(again)) == (True, {"a"}, None)

    async def test_a_commit_that_nobody_has_leaves_the_last_good_in_force(self, fleet: Fleet) -> None:
        fleet.commit("a")
        following = fleet.start()
        await following.refresh()
        following.pin("0" * 40)
        assert (await following.refresh(), in_force(following), code(following)) == (False, {"a"}, "ref-not-found")

    async def test_whoever_pins_has_said_that_fewer_files_are_meant(self, fleet: Fleet) -> None:
        old = fleet.commit("a")
        fleet.commit("b", "c", "d", "e")
        following = fleet.start()
        await following.refresh()
        following.pin(old)
        assert (await following.refresh(), in_force(following)) == (True, {"a"})

    async def test_only_whole_commits_of_git_can_be_pinned(self, fleet: Fleet, tmp_path: Path) -> None:
        with pytest.raises(SourceError):
            fleet.start().pin("main")
        directory = Following(open_source(str(tmp_path), state=tmp_path), Notes(), now=lambda: 0.0)
        with pytest.raises(UsageError):
            directory.pin("0" * 40)


async def test_a_refresh_that_is_cancelled_at_any_moment_leaves_everything_as_it_was(fleet: Fleet) -> None:
    fleet.commit("a")
    following = fleet.start()
    await following.refresh()
    fleet.commit("b")
    before = (following.good, following.trouble, dict(fleet.notes.kept))
    moments = random.Random(0)
    for _ in range(12):
        task = asyncio.create_task(following.refresh())
        await asyncio.sleep(moments.uniform(0, 0.06))
        if task.done():
            break
        task.cancel()
        await asyncio.wait([task])
        if task.cancelled():
            assert (following.good, following.trouble, fleet.notes.kept) == before
    await following.refresh()
    assert (in_force(following), following.trouble) == ({"a", "b"}, None)
