"""The demo agent is a real program: its conversations survive what happens to it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from demo.agent import Keys

AGENT = Path(__file__).resolve().parents[2] / "demo" / "agent.py"


def start(home: Path, *args: str) -> subprocess.Popen[str]:
    """The agent, without a terminal."""
    return subprocess.Popen(
        [sys.executable, str(AGENT), *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8"},
    )


def run(home: Path, *args: str, text: str = "/exit\n") -> tuple[int, str]:
    """The agent to its end: exit status and output."""
    with start(home, *args) as process:
        out, _ = process.communicate(text, timeout=20)
        return process.returncode, out


def messages(home: Path, session: str) -> list[tuple[str, str]]:
    """The conversation as it lies on disk: (role, text)."""
    lines = (home / ".demo-agent" / "conversations" / f"{session}.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["n"] for record in records] == list(range(1, len(records) + 1))
    return [(record["role"], record["text"]) for record in records]


def until_said(process: subprocess.Popen[str], words: str) -> str:
    """Output up to the line with these words."""
    assert process.stdout is not None
    said = ""
    while words not in said:
        line = process.stdout.readline()
        assert line, f"ended without saying {words!r}: {said}"
        said += line
    return said


def test_a_message_and_its_answer_are_on_disk_when_the_answer_is_shown(tmp_path: Path) -> None:
    code, out = run(tmp_path, "--session", "a", "--prompt", "watch the tests", text="and the docs\n/exit\n")
    assert code == 0
    assert "new conversation a" in out
    kept = messages(tmp_path, "a")
    assert [role for role, _ in kept] == ["user", "assistant"] * 2
    assert kept[0][1] == "watch the tests"
    assert kept[2][1] == "and the docs"
    assert "I remember 2 earlier messages; the first was: watch the tests" in out


def test_a_conversation_survives_kill_9_and_resumes(tmp_path: Path) -> None:
    with start(tmp_path, "--session", "a", "--prompt", "hello") as process:
        until_said(process, "Understood")
        process.kill()
    before = messages(tmp_path, "a")
    code, out = run(tmp_path, "--resume", "a")
    assert code == 0
    assert "resumed conversation a, 2 messages" in out
    assert messages(tmp_path, "a") == before


def test_a_line_that_was_half_written_is_left_and_not_counted(tmp_path: Path) -> None:
    run(tmp_path, "--session", "a", "--prompt", "hello")
    file = tmp_path / ".demo-agent" / "conversations" / "a.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"role": "us')
    assert "2 messages" in run(tmp_path, "--resume", "a")[1]
    run(tmp_path, "--resume", "a", "--prompt", "again")
    assert file.read_text().startswith(whole + '{"role": "us\n{')
    assert "4 messages" in run(tmp_path, "--resume", "a")[1]


def test_an_empty_prompt_is_no_message(tmp_path: Path) -> None:
    run(tmp_path, "--session", "a", "--prompt", "hello")
    run(tmp_path, "--resume", "a", "--prompt", "")
    assert len(messages(tmp_path, "a")) == 2


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("--session", "a"), "conversation a exists"),
        (("--resume", "b"), "there is no conversation b"),
        (("--resume", "../a"), "cannot name a conversation"),
        (("--session", ""), "cannot name a conversation"),
    ],
)
def test_it_refuses_what_would_mix_up_conversations(tmp_path: Path, args: tuple[str, ...], why: str) -> None:
    run(tmp_path, "--session", "a", "--prompt", "hello")
    code, out = run(tmp_path, *args)
    assert code == 1
    assert why in out


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with start(tmp_path, "--session", "a", "--prompt", "hello") as process:
        until_said(process, "Understood")
        code, out = run(tmp_path, "--resume", "a")
        assert (code, "open in another process" in out) == (1, True)
        process.terminate()
        assert process.wait(10) == 0
    assert run(tmp_path, "--resume", "a")[0] == 0


def test_without_input_it_lives_on_until_it_is_told_to_end(tmp_path: Path) -> None:
    with start(tmp_path, "--session", "a", "--prompt", "hello") as process:
        assert process.stdin is not None
        process.stdin.close()
        until_said(process, "Understood")
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


class Terminal:
    """The agent in a terminal of its own."""

    def __init__(self, home: Path, *args: str) -> None:
        self.near, far = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, str(AGENT), *args], stdin=far, stdout=far, stderr=far,
            env={"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "TERM": "xterm"}, start_new_session=True,
        )  # fmt: skip
        os.close(far)
        self.said = ""

    def until(self, pattern: str) -> str:
        """Everything that was shown, as soon as the pattern is in it."""
        end = time.monotonic() + 15
        while not re.search(pattern, self.said):
            assert time.monotonic() < end, self.said
            if select.select([self.near], [], [], 0.2)[0]:
                self.said += os.read(self.near, 65536).decode()
        return self.said

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self.near, text.encode())

    def close(self) -> int:
        """Its exit status."""
        self.type("/exit\r")
        code = self.process.wait(10)
        os.close(self.near)
        return code


def test_in_a_terminal_the_title_tells_busy_from_idle_and_a_paste_is_one_message(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "--session", "a")
    terminal.until(r"\x1b\[\?2004h")
    terminal.until(r"\x1b\]2;demo-agent: idle\x07")
    terminal.type("\x1b[200~two\rlines /exit\x1b[201~")
    terminal.type("\r")
    terminal.until(r"busy[\s\S]*Understood \(3 words\)[\s\S]*idle")
    terminal.type("wrogn\x7f\x7fng\x1b[D\r")
    terminal.until(r"I remember 2")
    assert terminal.close() == 0
    assert [text for role, text in messages(tmp_path, "a") if role == "user"] == ["two\nlines /exit", "wrong"]


def test_what_is_typed_comes_out_the_same_however_it_is_cut_into_pieces() -> None:
    data = "höllo\r\x1b[200~a\r\nb\x1b[Ac\x1b[201~\rlast\n".encode()
    whole = list(Keys().feed(data))
    assert whole == ["höllo", "a\nb\x1b[Ac", "last"]
    keys = Keys()
    assert [message for byte in data for message in keys.feed(bytes([byte]))] == whole
