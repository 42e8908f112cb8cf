"""What every source promises, whatever its kind; and what stays in force when it breaks its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import ReconcilerError
from reconciler.sources import Source, open_source
from reconciler.sources.following import Following
from reconciler.sources.notes import Notes
from tests.sources.repository import FLEET, Repository


class Place:
    """Somewhere that specs are written to, and the source that reads them."""

    def __init__(self, kind: str, place: Path) -> None:
        self.kind = kind
        self.place = place
        self.repository = Repository(place) if kind == "git" else None
        self.directory = place / "specs" if kind == "directory" else place / "repository/specs"
        self.text = str(self.directory) if kind == "directory" else f"{self.repository.url}?path=specs"  # type: ignore[union-attr]

    def write(self, **files: str | None) -> None:
        """Files by their stems; None removes."""
        if self.repository is not None:
            self.repository.commit({f"specs/{name}.toml": text for name, text in files.items()})
            return
        self.directory.mkdir(exist_ok=True)
        for name, text in files.items():
            path = self.directory / f"{name}.toml"
            path.unlink() if text is None else path.write_text(text, encoding="utf-8")

    def vanish(self) -> None:
        top = self.directory if self.repository is None else self.repository.path
        top.rename(self.place / "away")

    def come_back(self) -> None:
        top = self.directory if self.repository is None else self.repository.path
        (self.place / "away").rename(top)

    def open(self) -> Source:
        return open_source(self.text, state=self.place / "state")

    def follow(self) -> Following:
        return Following(self.open(), Notes(self.place / "state"), now=lambda: 7.0)


@pytest.fixture(params=["directory", "git"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = Place(request.param, tmp_path)
    before = dict(os.environ)
    if made.repository is not None:
        os.environ.update(made.repository.env)
    yield made
    os.environ.clear()
    os.environ.update(before)


async def test_a_revision_has_an_id_that_changes_with_what_it_says(place: Place) -> None:
    place.write(fleet=FLEET)
    source = place.open()
    first = await source.read()
    assert first.desired.revision == first.id
    assert (await source.read()).id == first.id
    place.write(more='[sessions.b]\nagent = "shell"\nargs = ["x"]\n')
    second = await source.read()
    assert second.id != first.id
    assert (second.files, set(second.desired.sessions)) == (2, {"api", "b"})


async def test_what_cannot_be_read_is_an_error_and_never_an_empty_fleet(place: Place) -> None:
    place.write(fleet=FLEET)
    source = place.open()
    place.vanish()
    with pytest.raises(ReconcilerError) as error:
        await source.read()
    assert error.value.remedy or error.value.exit_code == 65


async def test_a_poke_ends_the_waiting(place: Place) -> None:
    place.write(fleet=FLEET)
    source = place.open()
    await source.read()
    waiting = asyncio.create_task(source.changed())
    await asyncio.sleep(0.05)
    assert not waiting.done()
    source.poke()
    async with asyncio.timeout(5):
        await waiting


# -- what is in force ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("[sessions.api", "invalid-spec"),
        (FLEET.replace("agent", "agnet"), "invalid-spec"),
        ('[fleet]\nname = "t"\n', "empty-specs"),
        (FLEET.replace('"t"', '"other"'), "renamed"),
    ],
)
async def test_a_broken_revision_leaves_the_last_good_one_in_force(place: Place, broken: str, code: str) -> None:
    place.write(fleet=FLEET)
    following = place.follow()
    assert await following.refresh()
    good = following.good
    place.write(fleet=broken)
    assert not await following.refresh()
    assert following.good is good
    assert following.trouble is not None
    assert following.trouble.code == code
    place.write(fleet=FLEET + 'labels = { x = "1" }\n')
    assert await following.refresh()
    assert following.trouble is None


async def test_losing_most_of_the_files_is_taken_for_a_mistake_until_a_person_says_otherwise(place: Place) -> None:
    sessions = {f"s{number}": f'[sessions.s{number}]\nagent = "shell"\nargs = ["x"]\n' for number in range(5)}
    place.write(fleet=FLEET, **sessions)
    following = place.follow()
    await following.refresh()
    place.write(**dict.fromkeys(sessions))
    assert not await following.refresh()
    assert following.trouble is not None
    assert following.trouble.code == "mass-loss"
    assert following.good is not None
    assert len(following.good.desired.sessions) == 6
    again = place.follow()  # the program is started again: it knows what there was
    assert not await again.refresh() or again.good is not None
    assert again.trouble is not None
    revision = again.trouble.remedy.rpartition(" ")[2]
    again.accept(revision)
    assert await again.refresh()
    assert again.good is not None
    assert set(again.good.desired.sessions) == {"api"}


async def test_a_source_that_is_gone_and_returns_changes_nothing(place: Place) -> None:
    place.write(fleet=FLEET)
    following = place.follow()
    await following.refresh()
    place.vanish()
    assert not await following.refresh()
    trouble = following.trouble
    assert trouble is not None
    await following.refresh()
    assert following.trouble is trouble  # the same trouble, with its time
    place.come_back()
    assert not await following.refresh()
    assert following.trouble is None


async def test_after_a_restart_git_gives_the_last_good_commit_though_it_cannot_be_reached(place: Place) -> None:
    place.write(fleet=FLEET)
    await place.follow().refresh()
    place.vanish()
    again = place.follow()
    taken = await again.refresh()
    assert again.trouble is not None
    assert taken == (place.kind == "git")
    assert (again.good is not None) == taken


async def test_a_pin_holds_one_commit_whatever_the_branch_says(tmp_path: Path) -> None:
    place = Place("git", tmp_path)
    place.write(fleet=FLEET)
    following = place.follow()
    await following.refresh()
    assert following.good is not None
    first = following.good.commit
    place.write(more='[sessions.b]\nagent = "shell"\nargs = ["x"]\n')
    assert await following.refresh()
    following.pin(first)
    assert await following.refresh()
    assert following.good.commit == first
    assert not await following.refresh()
    following.pin(None)
    assert await following.refresh()
    assert set(following.good.desired.sessions) == {"api", "b"}


# -- a directory tells by itself -------------------------------------------------------------------------------------


async def _tells(source: Source, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await source.changed()
    except TimeoutError:
        return False
    return True


async def test_a_directory_tells_of_writes_removals_and_replacements_and_not_of_editors_scratch_files(
    tmp_path: Path,
) -> None:
    place = Place("directory", tmp_path)
    place.write(fleet=FLEET)
    source = place.open()
    await source.read()
    for name in (".fleet.toml.swp", "4913", "fleet.toml~", ".#fleet.toml", "#fleet.toml#"):
        (place.directory / name).write_text("x", encoding="utf-8")
    assert not await _tells(source, 0.7)
    beside = tmp_path / "new.toml"
    beside.write_text(FLEET + 'labels = { x = "1" }\n', encoding="utf-8")
    beside.rename(place.directory / "fleet.toml")
    assert await _tells(source, 10)  # also of what happened before it was asked
    await source.read()
    waiting = asyncio.create_task(_tells(source, 10))
    await asyncio.sleep(0.2)
    (place.directory / "prompt.md").write_text("x", encoding="utf-8")
    assert await waiting
    await source.read()
    waiting = asyncio.create_task(_tells(source, 10))
    await asyncio.sleep(0.2)
    other = tmp_path / "other"
    other.mkdir()
    (other / "fleet.toml").write_text(FLEET, encoding="utf-8")
    place.vanish()
    other.rename(place.directory)
    assert await waiting
