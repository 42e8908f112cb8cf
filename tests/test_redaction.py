"""What is concealed is said nowhere, in whatever shape, and nothing else is touched."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.observed import clean
from reconciler.core.printed import escaped
from reconciler.journal import Happened, Journal
from reconciler.redaction import MASK, conceal, redact, redact_json

KEY = "sk-r3d4ct10n-'\"\\ü\x1b%s"
PEM = "-----BEGIN KEY-----\nr3d4ct10n+line/one==\nr3d4ct10n+line/two==\n-----END KEY-----\n"


def test_every_shape_that_a_message_gives_a_value_is_masked() -> None:
    conceal(KEY)
    for shape in (KEY, escaped(KEY), clean(KEY), json.dumps(KEY), json.dumps(KEY, ensure_ascii=False),
                  json.dumps(escaped(KEY))):  # fmt: skip
        said = redact(f"the key {shape} is bad")
        assert "r3d4ct10n" not in said
        assert said.startswith("the key ")
        assert said.endswith(" is bad")
        assert MASK in said


def test_no_line_of_a_value_of_several_lines_is_shown() -> None:
    conceal(PEM)
    assert "r3d4ct10n" not in redact("bad line 2: r3d4ct10n+line/one==, in " + escaped(PEM))


def test_what_is_short_is_left_alone_and_keys_of_documents_stay() -> None:
    conceal("ab")
    conceal("host-r3d4ct10n")
    assert redact("ab") == "ab"
    assert redact_json({"host-r3d4ct10n": ["host-r3d4ct10n", 1, None]}) == {"host-r3d4ct10n": [MASK, 1, None]}


@given(st.text(min_size=4), st.text(), st.text())
def test_a_value_is_never_there_any_more(value: str, before: str, after: str) -> None:
    secret = f"{''.join(value.splitlines())}r3d4ct10n"  # a line of its own would be concealed in other tests too
    conceal(secret)
    assert "r3d4ct10n" not in redact(f"{before.replace('r3', '')}{secret}{after.replace('r3', '')}")


def test_the_longer_of_two_values_wins() -> None:
    conceal("r3d4ct10n-x")
    conceal("r3d4ct10n-x-and-more")
    assert redact("r3d4ct10n-x-and-more") == MASK


def test_the_journal_keeps_no_value(tmp_path: Path) -> None:
    conceal("r3d4ct10n-of-journal")
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        journal.begin("op", address="session.a", host="h", verb="start", precondition="", fence=1, revision="")
        journal.finish("op", "failed", f"{'x' * 1990} r3d4ct10n-of-journal")
        journal.note([Happened(0, 1.0, "session.a", "h", "Ready", "", "", "", "it said r3d4ct10n-of-journal")])
    assert not [file for file in tmp_path.iterdir() if b"r3d4ct10n" in file.read_bytes()]


SCRIPT = """
import logging, sys, threading
from reconciler.redaction import redact_streams
redact_streams()
from reconciler.secret_values import resolve
value = resolve("${env:KEY}")
print("out", value)
sys.stderr.write(f"err {value}\\n")
logging.getLogger("x").warning("log %s", value)
def bug(): raise ValueError(f"in a thread: {value}")
thread = threading.Thread(target=bug); thread.start(); thread.join()
print(resolve("${env:HOME}"))
raise RuntimeError(f"at the end: {value}")
"""


def test_neither_print_nor_logs_nor_tracebacks_of_a_process_say_a_value() -> None:
    env = {**os.environ, "KEY": "r3d4ct10n-of-process", "HOME": "/home/me"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=False)
    assert "r3d4ct10n" not in done.stdout + done.stderr
    assert done.stdout == f"out {MASK}\n/home/me\n"
    for words in (f"err {MASK}", f"log {MASK}", f"in a thread: {MASK}", f"at the end: {MASK}", "Traceback"):
        assert words in done.stderr


def test_bytes_are_data_and_pass() -> None:
    from reconciler.redaction import _Discreet

    conceal("r3d4ct10n-bytes")
    raw = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    stream = _Discreet(raw)
    stream.buffer.write(b"r3d4ct10n-bytes ")
    stream.writelines(["r3d4ct10n-bytes", "\n"])
    stream.flush()
    raw.seek(0)
    assert raw.buffer.read() == b"r3d4ct10n-bytes ***\n"
