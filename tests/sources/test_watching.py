"""Watching a directory: what counts as a change, and that none is missed whatever is done to the directory."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import SpecError
from reconciler.sources.watching import DirectorySource, matters
from tests.sources.repositories import session


@asynccontextmanager
async def watched(directory: Path) -> AsyncIterator[DirectorySource]:
    source = DirectorySource(str(directory))
    try:
        await source.read()
        yield source
    finally:
        await source.close()


async def changed(source: DirectorySource, within: float = 5.0) -> bool:
    try:
        async with asyncio.timeout(within):
            await source.changed()
    except TimeoutError:
        return False
    return True


async def until(source: DirectorySource, names: set[str]) -> bool:
    """Whether reading when a change is told, and only then, comes to see these sessions."""
    try:
        async with asyncio.timeout(8):
            while True:
                await source.changed()
                try:
                    if set((await source.read()).desired.sessions) == names:
                        return True
                except SpecError:
                    pass
    except TimeoutError:
        return False


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    directory = tmp_path / "specs"
    directory.mkdir()
    (directory / "a.toml").write_text(session("a"))
    return directory


class TestWhatMatters:
    @pytest.mark.parametrize(
        "name", ["a.toml", "x/a.toml", "p.md", ".reconcilerignore", "..data", "..data/a.toml", ".", "x.bin"]
    )
    def test_whatever_can_change_the_specs(self, name: str) -> None:
        assert matters(f"/specs/{name}", "/specs")

    @pytest.mark.parametrize(
        "name",
        [".a.toml.swp", "4913", "a.toml~", "#a.toml#", ".#a.toml", "a.toml.tmp", "a.toml___jb_tmp___",
         "a.toml___jb_old___", ".git/index", "x/.hidden/a.toml", "a.swp", "a.toml.bak", "x/4913"],
    )  # fmt: skip
    def test_nothing_hidden_and_nothing_of_editors(self, name: str) -> None:
        assert not matters(f"/specs/{name}", "/specs")

    @given(st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=12))
    def test_a_spec_file_that_would_be_read_always_matters(self, name: str) -> None:
        if not name.startswith("."):
            assert matters(f"/specs/{name}.toml", "/specs")


class TestChanges:
    async def test_a_file_that_is_written_added_or_removed_is_told_once_it_is_quiet(self, specs: Path) -> None:
        async with watched(specs) as source:
            (specs / "b.toml").write_text(session("b"))
            assert await until(source, {"a", "b"})
            (specs / "b.toml").write_text(session("c"))
            assert await until(source, {"a", "c"})
            (specs / "b.toml").unlink()
            assert await until(source, {"a"})

    async def test_a_prompt_file_is_a_change(self, specs: Path) -> None:
        (specs / "a.toml").write_text(session("a", 'prompt_file = "p.md"\n'))
        (specs / "p.md").write_text("one")
        async with watched(specs) as source:
            (specs / "p.md").write_text("two")
            assert await changed(source)
            assert (await source.read()).desired.prompts == {"a": "two"}

    async def test_reading_and_what_editors_leave_beside_a_file_are_none(self, specs: Path) -> None:
        async with watched(specs) as source:
            for name in (".a.toml.swp", "4913", "a.toml~", "#a.toml#", "a.toml.tmp"):
                (specs / name).write_text("x")
                (specs / name).unlink()
            await source.read()
            assert not await changed(source, 0.8)

    async def test_an_editor_that_replaces_the_file_is_seen(self, specs: Path) -> None:
        async with watched(specs) as source:
            (specs / "4913").touch()
            (specs / "4913").unlink()
            (specs / "a.toml").rename(specs / "a.toml~")
            (specs / "a.toml").write_text(session("b"))
            (specs / "a.toml~").unlink()
            assert await until(source, {"b"})

    async def test_a_folder_that_is_new_is_watched(self, specs: Path) -> None:
        async with watched(specs) as source:
            (specs / "x" / "y").mkdir(parents=True)
            (specs / "x" / "y" / "b.toml").write_text(session("b"))
            assert await until(source, {"a", "b"})
            (specs / "x" / "y" / "b.toml").write_text(session("c"))
            assert await until(source, {"a", "c"})

    async def test_a_burst_of_writes_is_few_changes(self, specs: Path) -> None:
        async with watched(specs) as source:
            for number in range(50):
                (specs / f"b{number}.toml").write_text(session(f"b{number}"))
            told = 0
            while await changed(source, 1.0):
                told += 1
                await source.read()
            assert 1 <= told <= 2

    async def test_a_file_that_is_half_written_is_not_read_as_it_is(self, specs: Path) -> None:
        async with watched(specs) as source:
            (specs / "a.toml").write_text("")
            reading = asyncio.create_task(source.read())
            await asyncio.sleep(0.05)
            (specs / "a.toml").write_text(session("a"))
            assert set((await reading).desired.sessions) == {"a"}


class TestTheDirectoryItself:
    async def test_replaced_by_a_rename(self, specs: Path, tmp_path: Path) -> None:
        async with watched(specs) as source:
            new = tmp_path / "new"
            new.mkdir()
            (new / "b.toml").write_text(session("b"))
            specs.rename(tmp_path / "old")  # noqa: ASYNC240
            new.rename(specs)
            assert await until(source, {"b"})
            (specs / "b.toml").write_text(session("c"))
            assert await until(source, {"c"})

    async def test_vanished_and_come_back(self, specs: Path) -> None:
        async with watched(specs) as source:
            shutil.rmtree(specs)
            assert await changed(source)
            with pytest.raises(SpecError, match="no spec directory"):
                await source.read()
            specs.mkdir()  # noqa: ASYNC240
            (specs / "b.toml").write_text(session("b"))
            assert await until(source, {"b"})
            (specs / "b.toml").write_text(session("c"))
            assert await until(source, {"c"})

    async def test_not_there_yet(self, tmp_path: Path) -> None:
        source = DirectorySource(str(tmp_path / "specs"))
        with pytest.raises(SpecError):
            await source.read()
        (tmp_path / "specs").mkdir()
        (tmp_path / "specs" / "a.toml").write_text(session("a"))
        assert await until(source, {"a"})
        await source.close()

    @pytest.mark.parametrize("below", ["", "sub"])
    async def test_a_link_that_is_switched(self, tmp_path: Path, below: str) -> None:
        for name in ("one", "two"):
            (tmp_path / name / below).mkdir(parents=True)
            (tmp_path / name / below / "a.toml").write_text(session(name))
        link(tmp_path / "current", "one")
        async with watched(tmp_path / "current" / below) as source:
            link(tmp_path / "current", "two")
            assert await until(source, {"two"})
            (tmp_path / "two" / below / "a.toml").write_text(session("three"))
            assert await until(source, {"three"})

    async def test_switched_as_kubernetes_does(self, tmp_path: Path) -> None:
        mount = tmp_path / "mount"
        for name in ("one", "two", "three"):
            (mount / f"..{name}" / "sub").mkdir(parents=True)
            (mount / f"..{name}" / "a.toml").write_text(session(name))
            (mount / f"..{name}" / "sub" / "b.toml").write_text(session(f"{name}-b"))
        link(mount / "..data", "..one")
        link(mount / "a.toml", "..data/a.toml")
        link(mount / "sub", "..data/sub")
        async with watched(mount) as source:
            assert set((await source.read()).desired.sessions) == {"one", "one-b"}
            for name, last in (("two", "one"), ("three", "two")):
                link(mount / "..data", f"..{name}")
                shutil.rmtree(mount / f"..{last}")
                assert await until(source, {name, f"{name}-b"})


def link(path: Path, target: str) -> None:
    """Make or switch a link in one step."""
    new = path.with_name(path.name + "_tmp")
    os.symlink(target, new)
    os.replace(new, path)


async def test_closing_ends_the_watch_and_whoever_waits_for_nothing_is_not_held_up(specs: Path) -> None:
    source = DirectorySource(str(specs))
    await source.read()
    waiting = asyncio.create_task(source.changed())
    await asyncio.sleep(0.05)
    async with asyncio.timeout(2):
        await source.close()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_nobody_asks_for_changes_that_the_kernel_tells_of(specs: Path) -> None:
    source = DirectorySource(str(specs))
    await source.read()
    await asyncio.sleep(1.0)
    try:
        before = _wakes()
        await asyncio.sleep(3.0)
        assert _wakes() - before < 10, "asking all the time takes two dozen"
        (specs / "later.toml").write_text('[sessions.later]\nagent = "shell"\nargs = ["x"]\n')
        assert await changed(source, 3.0)
        (specs / "below").mkdir()
        await asyncio.sleep(1.0)
        (specs / "below/deep.toml").write_text('[sessions.deep]\nagent = "shell"\nargs = ["x"]\n')
        assert await until(source, {"a", "later", "deep"})
    finally:
        await source.close()


def _wakes() -> int:
    """How often the threads of this process have been woken up."""
    found = Path("/proc/self/task").glob("*/status")
    return sum(int(path.read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0]) for path in found)
