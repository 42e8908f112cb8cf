"""What a decision rested on, in words: enough to judge it, and nothing that a host can play with."""

from __future__ import annotations

from dataclasses import replace

from reconciler.core.evidence import facts, facts_of_host
from reconciler.core.observed import Exit, Process, Reached, SessionSeen, Unreached

SEEN = SessionSeen("api", "lost", None, 3, process=Process(7, "1", 3, 7, alive=False))
GPU = Reached(
    "gpu", "gpu", "dev", "/home/dev", "Linux", "x86_64", "boot-1", "/s", now=1, fence=4, sessions={"api": SEEN}
)


def test_what_was_seen_of_a_session_is_said_in_one_line() -> None:
    assert facts("gpu", None) == "gpu: absent"
    assert facts("gpu", SEEN) == "gpu: lost, incarnation 3, pid 7 proven gone"
    ended = replace(SEEN, state="exited", exit=Exit(2, 9, 3, "no-agent"))
    assert facts("gpu", ended) == "gpu: exited, incarnation 3, pid 7 proven gone, exit code 2 no-agent"


def test_a_host_that_did_not_answer_is_said_not_to_have() -> None:
    assert facts_of_host(GPU, "api") == "gpu: lost, incarnation 3, pid 7 proven gone; boot boot-1, fence 4"
    assert facts_of_host(GPU, "other") == "gpu: absent; boot boot-1, fence 4"
    assert facts_of_host(Unreached("gpu", "timeout", "it did not answer"), "api") == "gpu: did not answer (timeout)"
    assert facts_of_host(None, "api") == ""


def test_words_of_a_host_are_bounded_and_have_no_control_characters() -> None:
    said = facts("gpu", replace(SEEN, trouble="\x1b[31m\n" + "x" * 5000))
    assert said.isprintable()
    assert len(said) < 500


def test_what_changes_by_itself_is_not_in_it() -> None:
    assert facts("gpu", replace(SEEN, attached=3)) == facts("gpu", SEEN)
    assert facts_of_host(replace(GPU, now=99), "api") == facts_of_host(GPU, "api")
