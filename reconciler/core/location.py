"""Where specs are in git, read from the URL that a person writes. Pure; whatever could be an option of git is refused.

    git+ssh://git@example.com/acme/fleet.git?ref=branch:main&path=specs&verify=head&allowed_signers=~/signers

Also `git+https://`, `git+file:///`, and as git itself writes them `ssh://`, `https://` and `git@example.com:acme/x`.
In the query, `%` escapes are decoded, and `+` is itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, cast
from urllib.parse import quote, unquote

from reconciler.core.diagnostics import did_you_mean
from reconciler.core.semver import parse_range
from reconciler.errors import SourceError

RefKind = Literal["head", "branch", "tag", "semver", "commit"]
Verify = Literal["head", "strict"]

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
_USER = r"[A-Za-z0-9_][A-Za-z0-9_.+-]*"
_URL = re.compile(
    rf"(?P<scheme>[a-z0-9+]+)://(?:(?P<user>[^/@]*)@)?(?P<host>{_HOST})?(?P<port>:[0-9]{{1,5}})?(?P<path>/.*)?",
    re.DOTALL,
)
_SCP = re.compile(rf"(?P<user>{_USER})@(?P<host>{_HOST}):(?P<path>[^?]+)(?:\?.*)?", re.DOTALL)
_SCHEMES = {"git+ssh": "ssh", "ssh": "ssh", "git+https": "https", "https": "https", "git+file": "file"}
_INSECURE = {"http", "git", "git+http", "git+git"}
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_BAD_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_KEYS = ("ref", "path", "verify", "allowed_signers")


@dataclass(frozen=True)
class GitLocation:
    """A checked place in git. `url` is what git is given, and holds no password."""

    url: str
    ref_kind: RefKind = "head"
    ref: str = ""
    path: str | None = None
    verify: Verify | None = None
    allowed_signers: str | None = None
    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """As people see it: the URL without any credentials, the ref and the folder."""
        shown = re.sub(r"(?<=^https://)[^/@]*@", "", self.url)
        query = [f"ref={self.ref_kind}:{self.ref}"] if self.ref else []
        query += [f"path={self.path}"] if self.path else []
        return shown + ("?" + "&".join(query) if query else "")


def looks_like_git(text: str) -> bool:
    """Whether this is meant as the URL of a repository, rather than as a directory."""
    return "://" in text or _SCP.fullmatch(text) is not None


def parse_location(text: str) -> GitLocation:
    """Raises SourceError(bad-url), which says what is wrong and never repeats a password."""
    base, _, query = text.partition("?")
    if "#" in base:
        raise _bad("a `#` has no meaning in the URL of a repository", "write the ref as `?ref=branch:NAME`")
    if not base.isprintable() or not unquote(base).isprintable():
        raise _bad("the URL holds a character that cannot be shown")
    if "://" not in base:
        return _with_query(_scp(base), query)
    return _with_query(_url(base), query)


def check_commit(text: str) -> str:
    """A whole commit id in lower case. Raises SourceError(bad-url)."""
    if _COMMIT.fullmatch(text.lower()) is None:
        raise _bad("a commit is named by its whole id: 40 hexadecimal digits", "see `git rev-parse`")
    return text.lower()


def is_ref_name(name: str) -> bool:
    """Whether git takes this for the name of a branch or tag (git help check-ref-format), and never for an option."""
    if not name or name[0] in "-/." or name[-1] in "/." or name == "@":
        return False
    return name.isprintable() and _BAD_IN_REF.search(name) is None


def _url(base: str) -> GitLocation:
    found = _URL.fullmatch(base)
    scheme = base.partition("://")[0].lower()
    if scheme in _INSECURE:
        raise _bad(f"`{scheme}://` proves nothing about who answers", "use `git+https://` or `git+ssh://`")
    if scheme not in _SCHEMES:
        raise _bad(f"`{scheme[:40]}://` is no kind of source", "use `git+ssh://`, `git+https://` or `git+file:///`")
    if found is None:
        raise _bad("the URL is not well-formed", "write for example `git+ssh://git@example.com/acme/fleet.git`")
    kind, path = _SCHEMES[scheme], found["path"] or ""
    if kind == "file":
        return _file(found, path)
    if not found["host"] or path in ("", "/"):
        raise _bad("the URL names no repository", "write for example `git+ssh://git@example.com/acme/fleet.git`")
    _check_path(path)
    user, _, password = (found["user"] or "").partition(":")
    user, password = unquote(user), unquote(password)
    if kind == "ssh" and password:
        raise _bad("SSH takes no password from a URL", "use a key; git runs with your SSH configuration")
    if kind == "ssh" and user and re.fullmatch(_USER, user) is None:
        raise _bad("the user's name in the URL has characters that no user's name has")
    # With a password, git gets both in another way than by its arguments.
    at = f"{quote(user, safe='')}@" if user and not password else ""
    where = f"{found['host']}{found['port'] or ''}{path}"
    return GitLocation(f"{kind}://{at}{where}", username=user, password=password)


def _file(found: re.Match[str], path: str) -> GitLocation:
    if found["user"] or found["port"] or found["host"] not in (None, "localhost") or path in ("", "/"):
        raise _bad("`git+file://` takes an absolute path", "write `git+file:///srv/fleet.git`, with three slashes")
    _check_path(path)
    return GitLocation(f"file://{path}")


def _check_path(path: str) -> None:
    if unquote(path).startswith("/-"):
        raise _bad("the path of the repository begins with a dash")


def _scp(base: str) -> GitLocation:
    found = _SCP.fullmatch(base)
    if found is None or found["path"].startswith("-"):
        raise _bad("the URL is not well-formed", "write for example `git+ssh://git@example.com/acme/fleet.git`")
    return GitLocation(base, username=found["user"])


def _with_query(place: GitLocation, query: str) -> GitLocation:
    values: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, _, value = part.partition("=")
        value = unquote(value)
        if key not in _KEYS:
            known = "there are " + ", ".join(f"`{word}`" for word in _KEYS)
            raise _bad(f"unknown key `{_shown(key)}` in the URL{did_you_mean(key, _KEYS)}", known)
        if key in values:
            raise _bad(f"`{key}` stands twice in the URL", "leave one out")
        if not value or not value.isprintable():
            raise _bad(f"`{key}` in the URL is empty or holds a character that cannot be shown")
        values[key] = value
    kind, ref = _ref(values["ref"]) if "ref" in values else ("head", "")
    path = _path(values["path"]) if "path" in values else None
    return GitLocation(
        place.url, cast("RefKind", kind), ref, path, check_verify(values.get("verify")), values.get("allowed_signers"),
        place.username, place.password,
    )  # fmt: skip


def check_verify(text: str | None) -> Verify | None:
    """Raises SourceError(bad-url) for a word that says nothing about signatures."""
    if text not in (None, "head", "strict"):
        raise _bad(f"`verify` is `head` or `strict`, not `{_shown(text)}`")
    return cast("Verify | None", text)


def _ref(text: str) -> tuple[str, str]:
    kind, colon, name = text.partition(":")
    if not colon or kind not in ("branch", "tag", "semver", "commit") or not name:
        raise _bad(
            f"`ref={_shown(text)}` does not say what it is",
            "write `ref=branch:NAME`, `ref=tag:NAME`, `ref=semver:RANGE` or `ref=commit:SHA`",
        )
    if kind == "commit":
        return kind, check_commit(name)
    if kind == "semver":
        try:
            parse_range(name)
        except ValueError as error:
            raise _bad(f"`ref=semver:`: {error}") from None
    elif not is_ref_name(name):
        raise _bad(f"`{_shown(name)}` is no name that a {kind} can have", "see `git help check-ref-format`")
    return kind, name


def _path(text: str) -> str:
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith(("/", "~")) or ".." in parts or ".git" in [part.lower() for part in parts]:
        raise _bad(f"`path={_shown(text)}` leaves the repository", "name a folder inside, such as `path=specs`")
    return "/".join(parts) or "."


def _shown(text: str | None) -> str:
    return "".join(c for c in (text or "")[:80] if c.isprintable())


def _bad(message: str, remedy: str = "") -> SourceError:
    return SourceError(message, code="bad-url", remedy=remedy, retry=False)
