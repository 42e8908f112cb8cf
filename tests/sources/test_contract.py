"""What every kind of source owes whoever follows it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from reconciler.errors import ReconcilerError, SourceError, SpecError
from reconciler.sources import Source, open_source
from tests.sources.repositories import ENV, Repository, session


class Place:
    """Where the specs of one source are, and how they are changed there."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.state = root / "state"
        self._repository = Repository(root / "fleet") if kind == "git" else None
        self.directory = root / "fleet"
        self.directory.mkdir(exist_ok=True)
        self.text = self._repository.url if self._repository else str(self.directory)

    def write(self, files: dict[str, str | None]) -> None:
        if self._repository is not None:
            self._repository.commit(files)
            return
        for name, text in files.items():
            path = self.directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink() if text is None else path.write_text(text)

    def vanish(self) -> None:
        self.directory.rename(self.directory.with_name("gone"))

    def open(self) -> Source:
        return open_source(self.text, state=self.state)


@pytest.fixture(params=["directory", "git"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for key in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(key, ENV[key])
    made = Place(request.param, tmp_path)
    made.write({"a.toml": session("a")})
    return made


@pytest_asyncio.fixture
async def source(place: Place) -> AsyncIterator[Source]:
    opened = place.open()
    yield opened
    await opened.close()


async def returns(source: Source) -> bool:
    try:
        async with asyncio.timeout(5):
            await source.changed()
    except TimeoutError:
        return False
    return True


async def test_what_is_declared_there_is_what_is_read(source: Source) -> None:
    found = await source.read()
    assert set(found.desired.sessions) == {"a"}
    assert found.files == 1
    assert found.id == found.desired.revision != ""


async def test_the_same_content_is_the_same_revision_and_another_is_another(source: Source, place: Place) -> None:
    first = await source.read()
    assert (await source.read()).id == first.id
    place.write({"b.toml": session("b")})
    second = await source.read()
    assert set(second.desired.sessions) == {"a", "b"}
    assert (second.id != first.id, second.files) == (True, 2)


async def test_two_that_read_the_same_place_agree(source: Source, place: Place) -> None:
    other = place.open()
    one, two = await asyncio.gather(source.read(), other.read())
    await other.close()
    assert (one.id, one.desired) == (two.id, two.desired)


async def test_invalid_specs_are_an_error_with_every_diagnostic(source: Source, place: Place) -> None:
    place.write({"a.toml": session("a", "nonsense = 1\n"), "b.toml": "["})
    with pytest.raises(SpecError) as caught:
        await source.read()
    assert len(caught.value.diagnostics) == 2


async def test_a_place_that_is_gone_is_an_error_and_never_an_empty_fleet(source: Source, place: Place) -> None:
    await source.read()
    place.vanish()
    with pytest.raises((SourceError, SpecError)) as caught:
        await source.read()
    assert caught.value.message


async def test_a_prompt_file_is_part_of_the_revision(source: Source, place: Place) -> None:
    place.write({"a.toml": session("a", 'prompt_file = "p.md"\n'), "p.md": "one"})
    first = await source.read()
    place.write({"p.md": "two"})
    second = await source.read()
    assert (first.desired.prompts, second.desired.prompts) == ({"a": "one"}, {"a": "two"})
    assert first.id != second.id


async def test_a_poke_says_look_now_and_is_used_up_by_a_read(source: Source) -> None:
    await source.read()
    source.poke()
    assert await returns(source)
    await source.read()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.8):
            await source.changed()


async def test_a_poke_during_a_read_is_not_lost(source: Source) -> None:
    reading = asyncio.create_task(source.read())
    await asyncio.sleep(0.01)
    source.poke()
    await reading
    assert await returns(source)


async def test_one_that_need_not_be_asked_tells_of_a_change_by_itself(source: Source, place: Place) -> None:
    await source.read()
    place.write({"b.toml": session("b")})
    if not source.polls:
        assert await returns(source)
    assert set((await source.read()).desired.sessions) == {"a", "b"}


async def test_a_read_that_is_cancelled_leaves_a_source_that_can_be_read(source: Source, place: Place) -> None:
    for pause in (0.0, 0.005, 0.02, 0.05, 0.09):
        reading = asyncio.create_task(source.read())
        await asyncio.sleep(pause)
        reading.cancel()
        await asyncio.wait([reading])
    assert set((await source.read()).desired.sessions) == {"a"}


async def test_what_is_not_kept_is_not_recalled(source: Source) -> None:
    await source.read()
    assert await source.recall("0" * 40) is None


async def test_what_was_read_is_recalled_without_the_place_where_there_are_commits(
    source: Source, place: Place
) -> None:
    found = await source.read()
    place.vanish()
    again = await source.recall(found.commit)
    assert (again.desired.sessions if again else None) == (found.desired.sessions if found.commit else None)


async def test_a_closed_source_may_be_closed_again(source: Source) -> None:
    await source.read()
    await source.close()
    await source.close()


async def test_the_name_says_where_it_is(source: Source, place: Place) -> None:
    assert str(place.directory) in source.name


async def test_nothing_is_written_to_the_place(source: Source, place: Place) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.directory.rglob("*")}
    await source.read()
    assert {path: path.stat().st_mtime_ns for path in place.directory.rglob("*")} == before


@pytest.mark.parametrize("text", ["http://example.com/r.git", "git+ssh://-x/r", "git+file:///r?ref=main"])
def test_a_bad_url_is_an_error_before_anything_is_read(text: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text, state=tmp_path)
    assert caught.value.code == "bad-url"


def test_a_directory_has_no_signatures(tmp_path: Path) -> None:
    with pytest.raises(ReconcilerError) as caught:
        open_source(str(tmp_path), verify="head", state=tmp_path)
    assert caught.value.exit_code == 64
