"""A pass after a pass: what hosts did not say otherwise is not thought of again. Real journal, real archive."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from reconciler.core.known import Known
from reconciler.core.observed import Observed, Reached
from reconciler.journal import Journal
from reconciler.reconcile import Evidence, Pass, consider, remember
from reconciler.transcripts.carrying import open_archive
from tests.core.situations import applied, host, running, specs

FLEET = (
    '[hosts.a]\n[hosts.b]\n[agents.mine]\nextends = "claude-code"\n[sessions.api]\nhost = "a"\nagent = "mine"\n'
    '[sessions.db]\nhost = "b"\nagent = "claude-code"\n[sessions.new]\nhost = "b"\nagent = "codex"\n'
)


def test_only_what_changed_or_is_to_be_done_is_decided_again_from_pass_to_pass(tmp_path: Path) -> None:
    desired, known = specs(f'[fleet]\narchive = "{tmp_path}/archive"\n{FLEET}'), Known()
    seen = {"a": host("a", running(applied(desired))), "b": host("b", running(applied(desired, "db")))}
    now = datetime(2026, 11, 21, tzinfo=UTC)
    with Journal(tmp_path / "journal.db") as journal:

        def think() -> Pass:
            observed = Observed(dict(seen))
            remember(journal, observed, desired)
            return consider(desired, Evidence(observed, open_archive(desired)), journal, now, known=known)

        first = think()
        assert sorted(known.anew["decisions"]) == ["api", "db", "new"]
        seen = {name: replace(found, now=found.now + 30) for name, found in seen.items()}
        second = think()
        assert (known.anew["entries"], known.anew["decisions"]) == ([], ["new"])  # its steps bear the id of the plan
        assert (first.diff, first.plan.summary) == (second.diff, second.plan.summary)
        ended: Reached = seen["a"]
        seen["a"] = replace(ended, sessions={"api": replace(ended.sessions["api"], state="lost", process=None)})
        assert [action.address for action in think().plan.actions] == ["session.api", "session.new"]
        assert (known.anew["entries"], sorted(known.anew["decisions"])) == (["api"], ["api", "new"])
