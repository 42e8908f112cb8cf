"""Which keys a host is known by: against `ssh-keygen -F`, over edits, and with thousands of lines."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.transports._known_hosts import add, lookup


def a_key() -> str:
    raw = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + os.urandom(32)
    return f"ssh-ed25519 {base64.b64encode(raw).decode()}"


def hashed(name: str) -> str:
    salt = os.urandom(20)
    mac = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(mac).decode()}"


def lines_of(path: Path, name: str, port: int = 22) -> list[int]:
    return [entry.line for entry in lookup([str(path)], name, port)]


def as_openssh_finds(path: Path, name: str) -> list[int]:
    done = subprocess.run(["ssh-keygen", "-F", name, "-f", str(path)], capture_output=True, text=True, check=False)
    return [int(line.rpartition("line ")[2].split()[0]) for line in done.stdout.splitlines() if line.startswith("# ")]


@given(st.lists(st.sampled_from(["a.example", "[a.example]:2200", "*.example", "b.example", "b.?xample"]), max_size=6))
@settings(max_examples=25, deadline=None, database=None)
def test_hashed_and_plain_lines_are_found_where_openssh_finds_them(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("known") / "known_hosts"
    words = [hashed(name) if at % 2 and "*" not in name and "?" not in name else name for at, name in enumerate(names)]
    path.write_text("".join(f"{word} {a_key()}\n" for word in words))
    assert lines_of(path, "a.example") == as_openssh_finds(path, "a.example")
    assert lines_of(path, "a.example", 2200) == as_openssh_finds(path, "[a.example]:2200")


def test_a_hash_with_a_long_salt_is_found_and_one_that_is_broken_is_passed_over(tmp_path: Path) -> None:
    path, salt = tmp_path / "known_hosts", os.urandom(100)
    mac = hmac.new(salt, b"a.example", hashlib.sha1).digest()
    good = f"|1|{base64.b64encode(salt).decode()}|{base64.b64encode(mac).decode()}"
    path.write_text(f"|1|not base64|x {a_key()}\n|1|only-a-part {a_key()}\n{good} {a_key()}\n")
    assert lines_of(path, "a.example") == [3]


def test_an_edit_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_text(f"a.example {a_key()}\n")
    assert lines_of(path, "a.example") == [1]
    path.write_text(f"# gone\nb.example {a_key()}\n")
    assert lines_of(path, "a.example") == []
    path.write_text(f"# gone\n@revoked a.example {a_key()}\n")
    assert [entry.marker for entry in lookup([str(path)], "a.example", 22)] == ["revoked"]
    path.unlink()
    assert lines_of(path, "a.example") == []


@pytest.mark.parametrize("last", ["", "# a comment\n", "c.example ssh-ed25519 AAAA\n", "c.example ssh-ed25519 AAAA"])
@pytest.mark.parametrize("hash_them", [False, True])
def test_lines_that_we_add_are_what_a_fresh_reader_finds(tmp_path: Path, last: str, hash_them: bool) -> None:
    path = tmp_path / "known_hosts"
    path.write_text((f"{hashed('z.example')} {a_key()}\n" if hash_them else "") + last)
    keys = {f"h{number}.example": a_key() for number in range(5)}
    for name, key in keys.items():
        assert lines_of(path, name) == []
        add(str(path), name, 22, key)
        add(str(path), name, 22, key)
    for name, key in keys.items():
        found = lookup([str(path)], name, 22)
        assert [entry.key for entry in found] == [key]
        assert [entry.line for entry in found] == as_openssh_finds(path, name)


def test_a_line_that_somebody_else_adds_between_ours_is_found(tmp_path: Path) -> None:
    path, other = tmp_path / "known_hosts", a_key()
    add(str(path), "a.example", 22, a_key())
    assert lines_of(path, "a.example") == [1]
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"other.example {other}\n")
    add(str(path), "b.example", 22, a_key())
    assert (lines_of(path, "a.example"), lines_of(path, "b.example")) == ([1], [3])
    assert [entry.key for entry in lookup([str(path)], "other.example", 22)] == [other]
