"""The hosts that an SSH config names one by one, for people who have them there already. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from reconciler.core.values import is_host_token, is_name

# Those that only serve git.
_FORGES = (
    "github.com", "*.github.com", "gitlab.com", "*.gitlab.com", "bitbucket.org", "codeberg.org", "*.azure.com",
    "*.visualstudio.com", "git.sr.ht", "gitea.com", "*.launchpad.net", "git-codecommit.*", "aur.archlinux.org",
)  # fmt: skip


@dataclass(frozen=True)
class Alias:
    """One host as a config names it; `address` and `user` as far as its own block says them."""

    name: str
    address: str = ""
    user: str = ""

    @property
    def only_git(self) -> bool:
        """Whether nobody logs in there but git."""
        places = (self.name.lower(), self.address.lower())
        return self.user == "git" or any(fnmatchcase(place, forge) for place in places for forge in _FORGES)


def words(line: str) -> list[str]:
    """The keyword, in lower case, and its arguments; empty for a comment or what ssh would not read either."""
    text = re.sub(r"^\s*(\w+)\s*=\s*", r"\1 ", line.strip())
    if not text or text.startswith("#"):
        return []
    try:
        found = shlex.split(text)
    except ValueError:
        return []
    return [found[0].lower(), *found[1:]] if found else []


def aliases(lines: Iterable[str]) -> list[Alias]:
    """The names of `Host` lines that are no patterns, in their order, each once."""
    found: dict[str, Alias] = {}
    present: list[str] = []
    for line in lines:
        keyword, *rest = words(line) or [""]
        if keyword == "host":
            present = [name for name in rest if not set(name) & set("*?!,") and is_host_token(name)]
            for name in present:
                found.setdefault(name, Alias(name))
        elif keyword == "match":
            present = []
        elif keyword in ("hostname", "user") and rest:
            for name in present:
                known = found[name]
                if keyword == "hostname" and not known.address:
                    found[name] = Alias(name, rest[0], known.user)
                elif keyword == "user" and not known.user:
                    found[name] = Alias(name, known.address, rest[0])
    return list(found.values())


def tables(found: Iterable[Alias], taken: Mapping[str, str]) -> dict[str, str]:
    """The text of `[hosts.NAME]` for each alias that the specs do not have yet.

    `taken` are the hosts of the specs, by name, with their addresses.
    """
    addresses = set(taken.values()) | set(taken)
    texts: dict[str, str] = {}
    for alias in found:
        if alias.name in addresses or not is_host_token(alias.name):
            continue
        name = _name(alias.name, {*taken, *texts})
        quoted = alias.name.replace("\\", "\\\\").replace('"', '\\"')
        texts[name] = f"[hosts.{name}]\n" + ("" if name == alias.name else f'address = "{quoted}"\n')
    return texts


def _name(alias: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9_-]+", "-", alias.lower()).strip("-_")[:50] or "host"
    base = base if is_name(base) and base != "local" else f"host-{base}"
    name, number = base, 2
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    return name
