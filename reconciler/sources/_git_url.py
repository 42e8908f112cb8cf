"""What a person writes for a git source, taken apart and checked: nothing in it can be an option of git."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from reconciler.core.semver import parse_range
from reconciler.errors import SourceError

Kind = Literal["head", "branch", "tag", "semver", "commit"]
_SCHEMES = {"ssh", "https", "http", "file"}
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^:].*")
_REF = re.compile(r"(?!-)(?!.*(\.\.|//|@\{|\.lock(/|$)|[/.]$))[A-Za-z0-9_.+/@#%=-]{1,200}")
_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_KEYS = ("ref", "path", "verify", "allowed_signers")


@dataclass(frozen=True)
class GitUrl:
    """Where a repository is, which of its refs counts, and where in it the specs are (`path` None: found out)."""

    url: str
    shown: str
    shown_url: str
    kind: Kind
    ref: str
    path: str | None
    verify: str | None
    allowed_signers: str | None


def is_git(text: str) -> bool:
    """Whether a source is meant to be git, not a directory."""
    head = text.partition("?")[0]
    return text.startswith("git+") or "://" in text or (_SCP.fullmatch(head) is not None and not os.path.isdir(text))


def parse_git_url(text: str, verify: str | None = None, allowed_signers: str | None = None) -> GitUrl:
    """Raises SourceError(bad-url) that says what is wrong. What is given by option wins over the URL's query."""
    head, _, query = text.partition("?")
    options = _query(text, query)
    url, shown = _location(text, head)
    kind, ref = _ref(text, options.get("ref"))
    how = verify or options.get("verify")
    signers = allowed_signers or options.get("allowed_signers")
    if how not in (None, "head", "strict"):
        raise _bad(text, f"verify is head or strict, not {how}")
    if how is not None and not signers:
        raise _bad(text, "verify needs the file of allowed signers", "--allowed-signers FILE")
    if signers and how is None:
        how = "head"
    if signers and not os.path.isfile(os.path.expanduser(signers)):
        raise _bad(text, f"there is no file {signers}")
    path = _path(text, options.get("path"))
    words = "&".join(f"{key}={value}" for key, value in options.items())
    return GitUrl(
        url, f"{shown}?{words}" if words else shown, shown.removeprefix("git+"), kind, ref, path, how,
        os.path.abspath(os.path.expanduser(signers)) if signers else None,
    )  # fmt: skip


def _query(text: str, query: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in _KEYS or key in options:
            known = ", ".join(_KEYS)
            raise _bad(text, f"`{key}` is given twice" if key in options else f"`{key}` is none of {known}")
        options[key] = value
    return options


def _location(text: str, head: str) -> tuple[str, str]:
    plain = head.removeprefix("git+")
    if any(not c.isprintable() or c.isspace() for c in plain):
        raise _bad(text, "it holds spaces or control characters")
    if _SCP.fullmatch(plain):
        return plain, plain
    parts = urlsplit(plain)
    if parts.scheme not in _SCHEMES:
        raise _bad(text, f"{parts.scheme or 'nothing'}:// is no way to a repository", "git+ssh, git+https or git+file")
    if parts.scheme != "file" and (not parts.hostname or parts.hostname.startswith("-")):
        raise _bad(text, "it names no host")
    if (parts.username or "").startswith("-") or parts.path.startswith("/-") or not parts.path.strip("/"):
        raise _bad(text, "it names no repository")
    host = parts.netloc.rpartition("@")[2]
    user = f"{parts.username}@" if parts.username and parts.scheme == "ssh" else ""
    shown = urlunsplit((parts.scheme, user + host, parts.path, "", ""))
    return plain, ("git+" if head.startswith("git+") else "") + shown


def _ref(text: str, ref: str | None) -> tuple[Kind, str]:
    if ref is None:
        return "head", "HEAD"
    kind, colon, value = ref.partition(":")
    if not colon:
        kind, value = "branch", ref
    if kind == "semver" and parse_range(value) is not None:
        return "semver", value
    if kind == "commit" and _SHA.fullmatch(value):
        return "commit", value
    if kind in ("branch", "tag") and _REF.fullmatch(value):
        return ("branch" if kind == "branch" else "tag"), value
    raise _bad(text, f"ref={ref} is none of branch:NAME, tag:NAME, semver:RANGE, commit:SHA (40 hex digits)")


def _path(text: str, path: str | None) -> str | None:
    if path is None:
        return None
    clean = path.strip("/")
    if any(part in ("..", ".git") for part in clean.split("/")) or "\0" in clean:
        raise _bad(text, f"path={path} leads out of the repository")
    return "" if clean == "." else clean


def _bad(text: str, why: str, remedy: str = "") -> SourceError:
    shown = re.sub(r"//[^/@]*@", "//", text)
    return SourceError(
        f"{shown}: {why}", code="bad-url",
        remedy=remedy or "such as git+ssh://git@example.com/acme/fleet.git?ref=branch:main&path=specs",
    )  # fmt: skip
