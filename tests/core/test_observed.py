"""The answer of a look is hostile until it is parsed: a fact, trouble of one session, or a HostError."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.observed import LOOK_LIMIT, Reached, SessionSeen, clean, parse_again, parse_look
from reconciler.core.record import Record
from reconciler.errors import HostError

NONCE = "c0ffee"
HOST = {
    "hostname": "gpu-7", "user": "me", "home": "/home/me", "system": "Linux", "arch": "x86_64", "machine": "m-1",
    "boot": "boot-1", "state": "/home/me/.local/state/reconciler/default", "shell": "/bin/bash", "path": "/usr/bin",
    "tmux": "tmux 3.4", "now": 1_800_000_000, "fence": 3,
}  # fmt: skip
RECORD = Record("default", "api", "claude-code", "tmux", "sha256:0", incarnation=2, conversation="c-1")
PROCESS = {"pid": 100, "start": "7", "boot": "boot-1", "incarnation": 2, "group": 99, "alive": True}

Line = tuple[str, str, object]


def answer(*lines: Line, nonce: str = NONCE, host: object = HOST) -> bytes:
    """What a host prints: `lines` after the line about itself, and the trailer."""
    every = [("host", "-", host), *lines]
    texts = [f"{kind}\t{name}\t{data if isinstance(data, str) else json.dumps(data)}" for kind, name, data in every]
    return "".join(f"{text}\n" for text in (*texts, f"end\t{nonce}\t{len(texts)}")).encode()


def look(*lines: Line, host: object = HOST) -> Reached:
    return parse_look("gpu", NONCE, answer(*lines, host=host))


def api(*lines: Line, record: str | None = RECORD.to_json(), incarnation: object = 2) -> SessionSeen:
    known: list[Line] = [] if record is None else [("record", "api", record)]
    return look(*known, ("session", "api", {"incarnation": incarnation}), *lines).sessions["api"]


FULL = answer(
    ("record", "api", RECORD.to_json()),
    ("session", "api", {"incarnation": 2}),
    ("process", "api", PROCESS),
    ("exit", "api", {"code": 1, "at": 5, "incarnation": 1, "error": "", "detail": ""}),
    ("event", "api", '{"state":"idle"}'),
    ("pane", "api", {"pid": 1, "dead": 0, "attached": 2, "title": "api"}),
    ("fact", "api", {"key": "status", "data": base64.b64encode(b"hello").decode()}),
    ("names", "api", {"key": "locks"}),
    ("names", "api", {"key": "locks", "base": "a.lock"}),
    ("store", "api", {"key": "store"}),
    ("store", "api", {"key": "store", "path": "/x.jsonl", "size": 3, "mtime": 1.5}),
    ("check", "command", {"value": "claude", "found": "/usr/bin/claude"}),
    ("check", "directory", {"value": "~", "found": ""}),
    ("foreign", "-", '"My Session"'),
)


class TestWhatALookSays:
    def test_a_full_look_is_read_in_full(self) -> None:
        reached = parse_look("gpu", NONCE, FULL)
        seen = reached.sessions["api"]
        assert (reached.hostname, reached.now, reached.fence, reached.tmux) == ("gpu-7", 1_800_000_000, 3, "tmux 3.4")
        assert (reached.commands, reached.directories) == ({"claude": "/usr/bin/claude"}, {"~": ""})
        assert (seen.state, seen.record, seen.incarnation, seen.attached) == ("running", RECORD, 2, 2)
        assert (seen.facts.texts, seen.facts.names, seen.facts.event) == (
            {"status": "hello"}, {"locks": ("a.lock",)}, '{"state":"idle"}',
        )  # fmt: skip
        assert [(f.path, f.size, f.mtime) for f in seen.facts.store or ()] == [("/x.jsonl", 3, 1.5)]
        assert seen.exit is None, "an exit of an older incarnation says nothing of this one"

    @pytest.mark.parametrize(
        ("lines", "state"),
        [
            ([("process", "api", PROCESS)], "running"),
            ([("process", "api", PROCESS), ("lock", "api", {"held": True})], "running"),
            ([("process", "api", {**PROCESS, "alive": None})], "unknown"),
            ([("process", "api", {**PROCESS, "alive": False})], "lost"),
            ([("process", "api", {**PROCESS, "alive": False}), ("lock", "api", {"held": True})], "starting"),
            ([("exit", "api", {"code": 1, "at": 5, "incarnation": 2})], "exited"),
            ([("exit", "api", {"code": 1, "at": 5, "incarnation": 1})], "lost"),
            ([("pane", "api", {"pid": 1, "dead": 0, "attached": 0, "title": ""})], "starting"),
            ([("pane", "api", {"pid": 1, "dead": 1, "attached": 0, "title": ""})], "lost"),
            ([("process", "api", {**PROCESS, "alive": False}), ("process", "api", {**PROCESS, "pid": 7})], "running"),
            ([], "lost"),
        ],
    )
    def test_dead_needs_proof_and_alive_wins(self, lines: list[Line], state: str) -> None:
        assert api(*lines).state == state

    def test_a_record_that_says_stopped_is_stopped(self) -> None:
        assert api(record=replace(RECORD, intent="stopped").to_json()).state == "stopped"

    def test_a_process_without_a_record_is_broken_and_none_at_all_is_stopped(self) -> None:
        assert api(("process", "api", PROCESS), record=None).state == "broken"
        assert api(record=None).state == "stopped"

    @pytest.mark.parametrize("record", ["", "{}", "[]", "not json", "{" * 9, RECORD.to_json()[:-9], '{"version":2}'])
    def test_a_record_that_cannot_be_read_is_broken_and_never_absent(self, record: str) -> None:
        seen = api(("process", "api", PROCESS), record=record)
        assert (seen.state, seen.record) == ("broken", None)
        assert "record" in seen.trouble
        assert seen.live

    def test_the_record_of_another_session_is_broken(self) -> None:
        assert api(record=replace(RECORD, name="web").to_json()).state == "broken"
        other = ("check", "link", {"value": "web", "found": "db"})
        assert api(other, record=replace(RECORD, name="web").to_json()).state == "broken"

    def test_a_record_under_an_older_name_of_the_session_is_its_own(self) -> None:
        link = ("check", "link", {"value": "web", "found": "api"})
        seen = api(link, ("process", "api", PROCESS), record=replace(RECORD, name="web").to_json())
        assert (seen.state, seen.record, seen.called) == ("running", RECORD, "web")

    @pytest.mark.parametrize("incarnation", [None, "x", 1.5, -1, True, [], {"a": 1}])
    def test_an_incarnation_that_is_no_count_is_broken(self, incarnation: object) -> None:
        assert api(incarnation=incarnation).state == "broken"

    @pytest.mark.parametrize(
        "line",
        [
            ("process", "api", {"pid": 1}),
            ("process", "api", {**PROCESS, "alive": "yes"}),
            ("exit", "api", '{"code":1e999,"at":1,"incarnation":2}'),
            ("store", "api", '{"key":"store","path":"/x","size":1e999,"mtime":1}'),
            ("store", "api", {"key": "store", "path": "/x\0y", "size": 1, "mtime": 1}),
            ("store", "api", '{"key":"store","path":"/\\ud800","size":1,"mtime":1}'),
            ("store", "api", {"key": "store", "path": 5, "size": 1, "mtime": 1}),
            ("fact", "api", {"key": "status", "data": "***"}),
            ("process", "api", "[" * 50_000),
            ("process", "api", "null"),
        ],
        ids=str,
    )
    def test_a_line_that_makes_no_sense_is_trouble_of_its_session_alone(self, line: Line) -> None:
        reached = look(("session", "api", {"incarnation": 1}), ("session", "web", {"incarnation": 0}), line)
        assert reached.sessions["api"].state == "broken"
        assert reached.sessions["web"].state == "stopped"


class TestWhatIsNoLook:
    def test_a_look_cut_at_any_byte_is_no_look(self) -> None:
        for length in range(len(FULL) - 1):
            with pytest.raises(HostError):
                parse_look("gpu", NONCE, FULL[:length])

    def test_a_look_with_any_line_missing_is_no_look(self) -> None:
        lines = FULL.splitlines(keepends=True)
        for index in range(len(lines)):
            with pytest.raises(HostError):
                parse_look("gpu", NONCE, b"".join(lines[:index] + lines[index + 1 :]))

    def test_the_answer_to_another_look_is_no_look(self) -> None:
        with pytest.raises(HostError):
            parse_look("gpu", "other", FULL)

    @pytest.mark.parametrize(
        "host",
        [
            "[]", "7", "{", "[" * 50_000, {**HOST, "now": "1"}, {**HOST, "now": None}, {**HOST, "fence": 1.5},
            {**HOST, "boot": ""}, {**HOST, "home": "relative"}, {**HOST, "home": 5}, {**HOST, "state": "/a\nb"},
            {**HOST, "state": "/\x1b[2J"}, {k: v for k, v in HOST.items() if k != "state"},
        ],
        ids=lambda host: str(host)[:30],
    )  # fmt: skip
    def test_a_host_that_does_not_say_whose_look_it_is_is_unknown(self, host: object) -> None:
        with pytest.raises(HostError):
            look(host=host)

    def test_a_look_without_end_is_refused(self) -> None:
        with pytest.raises(HostError, match="too long"):
            parse_look("gpu", NONCE, b"x" * (LOOK_LIMIT + 1))


HOSTILE = ["..", "a/b", "a\tb", "a\nb", "\x1b[2J", "A", "-", "", "a" * 64, "session.api", "é", "a b", "$(id)"]


class TestHostileText:
    @pytest.mark.parametrize("name", HOSTILE)
    def test_a_name_that_is_none_becomes_no_session(self, name: str) -> None:
        try:
            reached = look(("session", name, {"incarnation": 1}), ("process", name, PROCESS))
        except HostError:
            return  # its lines do not add up
        assert name not in reached.sessions
        # A tab ends the name: what is left of it has lines that make no sense.
        assert {seen.state for seen in reached.sessions.values()} <= {"broken"}

    def test_what_is_shown_of_a_host_has_no_control_characters(self) -> None:
        evil = "\x1b]0;x\x07\r\n\u202e" + "a"
        reached = look(
            ("foreign", "-", json.dumps(evil)),
            ("check", "command", {"value": "claude", "found": evil}),
            ("session", "api", {"incarnation": 1}),
            ("exit", "api", {"code": 1, "at": 1, "incarnation": 1, "error": evil, "detail": evil}),
            ("pane", "api", {"pid": 1, "dead": 1, "attached": "x", "title": evil}),
            host={**HOST, "hostname": evil, "user": evil, "path": evil},
        )
        seen = reached.sessions["api"]
        assert seen.exit is not None
        shown = [reached.hostname, reached.user, reached.path, reached.commands["claude"], seen.exit.error]
        assert all(text.isprintable() for text in (*shown, seen.exit.detail, seen.facts.title, *reached.foreign))

    def test_clean_is_bounded(self) -> None:
        assert clean("a" * 9999, 10) == "a" * 10

    @given(st.text() | st.text(st.sampled_from("ab\x1b\n\u202e\ud800")), st.integers(0, 20))
    def test_clean_takes_out_what_cannot_be_printed_and_nothing_else(self, text: str, limit: int) -> None:
        assert clean(text, limit) == "".join(c for c in text[:limit] if c.isprintable())


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KINDS = (
    "host record session process exit event pane fact names store lock check foreign tmux trouble incarnation nonsense"
)
KEYS = "pid start boot incarnation group alive code at error detail key data base path size mtime title dead value"
kinds, keys = st.sampled_from(KINDS.split()), st.sampled_from(KEYS.split())
tables = st.dictionaries(keys, values, max_size=8)
lines = st.tuples(kinds, st.sampled_from(["api", "web", *HOSTILE]), tables | values)


def named(name: str, *, title: str = "", **more: Any) -> list[Line]:
    """A session with a record and a pane of its own."""
    return [
        ("record", name, replace(RECORD, name=name, **more).to_json()),
        ("session", name, {"incarnation": 2}),
        ("pane", name, {"pid": 1, "dead": 0, "attached": 0, "title": title}),
    ]


class TestOnlyWhatChangedIsParsed:
    def test_of_sessions_that_are_told_of_in_the_same_words_nothing_is_parsed_again(self) -> None:
        first, known = parse_again("gpu", NONCE, answer(*named("a"), *named("b"), *named("c")))
        now = {**HOST, "now": 1_800_000_009, "fence": 4}
        later = answer(*named("a"), *named("b", at=7), *named("c"), host=now)
        second, known = parse_again("gpu", NONCE, later, None, known)
        assert second.sessions["a"] is first.sessions["a"]
        assert second.sessions["c"] is first.sessions["c"]
        assert second == parse_look("gpu", NONCE, later)
        third, _ = parse_again("gpu", NONCE, answer(*named("b", at=7)), None, known)
        assert list(third.sessions) == ["b"]
        assert third.sessions["b"] is second.sessions["b"]

    def test_what_tmux_says_itself_is_part_of_the_words(self) -> None:
        told = answer(*named("a"), *named("b"))
        _, known = parse_again("gpu", NONCE, told, b"a\t1\t0\t0\told\nb\t2\t0\t0\told")
        panes = b"a\t1\t0\t0\told\nb\t2\t0\t3\tnew"
        seen, _ = parse_again("gpu", NONCE, told, panes, known)
        assert seen == parse_look("gpu", NONCE, told, panes)
        assert (seen.sessions["b"].facts.title, seen.sessions["b"].attached) == ("new", 3)

    def test_so_is_who_a_record_of_another_name_belongs_to(self) -> None:
        moved: list[Line] = [("record", "new", RECORD.to_json()), ("session", "new", {"incarnation": 2})]
        link: Line = ("check", "link", {"value": "api", "found": "new"})
        before, known = parse_again("gpu", NONCE, answer(*moved))
        after, _ = parse_again("gpu", NONCE, answer(*moved, link), None, known)
        assert (before.sessions["new"].state, after.sessions["new"].state) == ("broken", "lost")

    @given(st.lists(lines, max_size=9), st.lists(lines, max_size=9), st.lists(st.sampled_from("ab"), max_size=2))
    def test_what_was_known_before_changes_nothing_of_what_is_seen(
        self, before: list[Line], after: list[Line], kept: list[str]
    ) -> None:
        kept_lines = [line for name in kept for line in named(name)]
        try:
            _, known = parse_again("gpu", NONCE, answer(*before, *kept_lines), b"a\t1\t0\t0\tx")
            fresh = parse_look("gpu", NONCE, answer(*kept_lines, *after))
        except HostError:
            return
        again, _ = parse_again("gpu", NONCE, answer(*kept_lines, *after), None, known)
        assert repr(again) == repr(fresh)

    titles = st.lists(st.tuples(st.text(max_size=5).map(clean), st.integers(0, 3)), min_size=3, max_size=3)

    @given(titles, titles)
    def test_new_titles_alone_are_put_into_what_was_seen(
        self, before: list[tuple[str, int]], after: list[tuple[str, int]]
    ) -> None:
        told = answer(*named("a"), *named("b"))  # of the third, tmux alone says something

        def listed(panes: list[tuple[str, int]]) -> bytes:
            return "\n".join(f"{n}\t1\t0\t{p[1]}\t{p[0]}" for n, p in zip("abc", panes, strict=True)).encode()

        seen = parse_look("gpu", NONCE, told, listed(before)).titled(listed(after))
        assert seen == parse_look("gpu", NONCE, told, listed(after))

    def test_the_same_at_another_time_differs_in_the_time_alone(self) -> None:
        seen = parse_look("gpu", NONCE, FULL)
        assert seen.at(5) == replace(seen, now=5)

    def test_records_that_say_the_same_share_it(self) -> None:
        written = {"args": ["sleep", "9"], "env": {"A": "sha256:1"}}
        seen = look(*named("a", written=written), *named("b", written=written)).sessions
        assert seen["a"].record is not None
        assert seen["b"].record is not None
        assert seen["a"].record.written == written
        assert seen["a"].record.written is seen["b"].record.written
        assert seen["a"].record.digest is seen["b"].record.digest


class TestFuzz:
    def survives(self, data: bytes) -> None:
        """A HostError, or facts of which every part can be shown and sent."""
        try:
            reached = parse_look("gpu", NONCE, data)
        except HostError:
            return
        for seen in reached.sessions.values():
            assert seen.state != "running" or seen.record is not None
            for file in seen.facts.store or ():
                assert file.path.encode()
            assert clean(seen.trouble) is not None

    @given(st.binary(max_size=400))
    def test_any_bytes_at_all(self, data: bytes) -> None:
        self.survives(data)
        self.survives(data + f"\nend\t{NONCE}\t{data.count(10) + 1}\n".encode())

    @given(st.lists(lines, max_size=6))
    def test_any_tables_in_lines_that_add_up(self, found: list[tuple[str, str, Any]]) -> None:
        self.survives(answer(*found))

    @given(st.integers(0, len(FULL) - 1), st.binary(max_size=6), st.integers(0, 40))
    def test_a_look_with_a_wound(self, at: int, patch: bytes, gap: int) -> None:
        self.survives(FULL[:at] + patch + FULL[at + gap :])
