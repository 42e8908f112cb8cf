"""Agents whose store is no files: their export, in their own environment, kept whole."""

from __future__ import annotations

import json

import pytest

from reconciler.core.observed import SessionSeen
from reconciler.core.record import Record
from reconciler.transcripts.archive import EXPORT, Archive
from reconciler.transcripts.sync import Item, PullResult, pull_many
from tests.transcripts.machines import (
    Machine,
)

OPENCODE = """#!/bin/sh
[ "$1" = export ] || exit 1
echo "words for people" >&2
[ "$KEY" = 'se"cr$et' ] || exit 3
printf '{"id":"%s","directory":"%s","messages":%s}' "$2" "$(pwd)" "$(cat "$HOME/messages")"
"""


class Exporting:
    """A host with a program that exports, on the PATH of login shells only."""

    def __init__(self, machine: Machine) -> None:
        from reconciler import drivers

        self.machine = machine
        self.agent = drivers.built_in_agent("opencode")
        program = machine.home / "bin/opencode"
        program.parent.mkdir(exist_ok=True)
        program.write_text(OPENCODE)
        program.chmod(0o755)
        (machine.home / ".profile").write_text('echo noise\nPATH="$HOME/bin:$PATH"\nKEY=other\n')
        work = machine.home / "work dir"
        work.mkdir(exist_ok=True)
        for path in (program.parent, program, machine.home / ".profile", work):
            machine.own(path)
        self.messages("[1]")

    def messages(self, text: str) -> None:
        path = self.machine.home / "messages"
        path.write_text(text)
        self.machine.own(path)

    async def pull(self, archive: Archive, **changes: str) -> PullResult:
        record = Record("f", "s0", "opencode", "tmux", "d", conversation="ses_0123456789", workdir="~/work dir")
        seen = SessionSeen("s0", "running", record, 1)
        item = Item("s0", self.agent, seen, environment={"KEY": 'se"cr$et'}, shell="/bin/sh", **changes)
        [result] = await pull_many(self.machine.connection, [item], archive)
        return result


async def test_an_export_runs_in_the_sessions_own_environment_and_is_kept_whole(
    machine: Machine, archive: Archive
) -> None:
    exporting = Exporting(machine)
    assert (await exporting.pull(archive)).outcome == "synced"
    data = json.loads(b"".join(archive.read("s0", "ses_0123456789", EXPORT)))
    assert data == {"id": "ses_0123456789", "directory": f"{machine.inner}/work dir", "messages": [1]}
    assert (await exporting.pull(archive)).outcome == "unchanged"
    exporting.messages("[1,2]")
    assert (await exporting.pull(archive)).outcome == "synced"
    assert sorted(archive.heads()["s0"].files) == [EXPORT, f"{EXPORT}.1"]
    left = [p.name for p in machine.home.rglob("*") if "export" in p.name]
    assert left == []


async def test_an_export_with_less_in_it_takes_nobodys_place(machine: Machine, archive: Archive) -> None:
    exporting = Exporting(machine)
    exporting.messages("[1,2,3]")
    await exporting.pull(archive)
    exporting.messages("[]")
    for _ in range(2):
        assert (await exporting.pull(archive)).outcome == "diverged"
        assert b"[1,2,3]" in b"".join(archive.read("s0", "ses_0123456789", EXPORT))


@pytest.mark.parametrize(("text", "code"), [("[1", "sync-failed"), ("[1]'\nexit 1 #", "sync-failed")])
async def test_an_export_that_is_not_whole_is_refused(machine: Machine, archive: Archive, text: str, code: str) -> None:
    exporting = Exporting(machine)
    exporting.messages(text)
    result = await exporting.pull(archive)
    assert result.error is not None
    assert result.error.code == code
    assert archive.heads() == {}


async def test_an_agent_that_is_not_there_is_said(machine: Machine, archive: Archive) -> None:
    result = await Exporting(machine).pull(archive, command="nosuch-agent")
    assert result.error is not None
    assert result.error.code == "agent-missing"
    assert "nosuch-agent" in result.message
