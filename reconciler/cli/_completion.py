"""What the shell's Tab completes: names of the specs, and paths on hosts. Quick, silent, and it asks nobody anything.

Whatever goes wrong, there is nothing to complete. A host is asked only over what is known of it already: no unknown
host key is accepted, no command or keyring is asked for a password.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

import typer

__all__ = [
    "completed",
    "fault_words",
    "host_names",
    "local_or_remote_paths",
    "remote_paths",
    "run_ids",
    "session_names",
]

VARIABLE = "_RECONCILER_COMPLETE"
_SOFT, _HARD = 2.0, 3.0  # seconds
_MOST = 400  # names
_SAFE = re.compile(r"[^\w@%+=:,./~-]", re.ASCII)
_BASH = "complete_bash"
# $1 the directory, $2 how its names begin. NUL-separated; directories end with a slash.
_LIST = """
case $1 in "~/"*) d=$HOME/${1#"~/"} ;; "") d=. ;; *) d=$1 ;; esac
cd -- "$d" 2>/dev/null || exit 0
n=0
for f in * .[!.]* ..?*; do
  case $f in "$2"*) ;; *) continue ;; esac
  [ -e "$f" ] || [ -L "$f" ] || continue
  case $f in .*) case $2 in .*) ;; *) continue ;; esac ;; esac
  s=; [ ! -d "$f" ] || s=/
  printf '%s%s\\000' "$f" "$s"
  n=$((n + 1)); [ "$n" -lt MOST ] || break
done
""".replace("MOST", str(_MOST))


def completed(answer: Callable[[], Any]) -> None:
    """Let `answer` print what completes the words, in the form that the shell which asks can use.

    bash cuts words at colons, and quotes nothing: `gpu:~/x` arrives as three words, and what replaces the last of them
    is asked for.
    """
    if os.environ.get(VARIABLE) != _BASH:
        answer()
        return
    before = _join_at_colons()
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        answer()
    for line in said.getvalue().splitlines():
        typer.echo(_SAFE.sub(_backslash, line.removeprefix(before)))


def _backslash(found: re.Match[str]) -> str:
    return f"\\{found[0]}" if found[0].isascii() else found[0]


def _join_at_colons() -> str:
    """Put together what bash cut; what of the last word bash holds for a word before it."""
    words = _split(os.environ.get("COMP_WORDS", ""))
    current = os.environ.get("COMP_CWORD", "")
    if not current.isdigit() or ":" not in words:
        return ""
    words = [*words, *[""] * (int(current) + 1 - len(words))][: int(current) + 1]
    joined: list[str] = []
    for number, word in enumerate(words):
        if number >= 2 and word and ":" in (word, words[number - 1]):
            joined[-1] += word
        else:
            joined.append(word)
    os.environ["COMP_WORDS"], os.environ["COMP_CWORD"] = shlex.join(joined), str(len(joined) - 1)
    last, colon, _ = joined[-1].partition(":")
    return last + colon if colon else ""


def _split(text: str) -> list[str]:
    """Words as a shell reads them, also with a quote that is still open."""
    for end in ("", "'", '"', "\\"):
        try:
            return shlex.split(text + end)
        except ValueError:
            continue
    return text.split()


def host_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Hosts of the specs."""
    return _quietly(lambda: _begun(_desired(ctx).hosts, incomplete))


def session_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Sessions of the specs."""
    return _quietly(lambda: _begun(_desired(ctx).sessions, incomplete))


def run_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs of which something is left, the latest first."""
    return _quietly(lambda: _begun(_unfinished(ctx), incomplete))


def fault_words(ctx: typer.Context, incomplete: str) -> list[str]:
    """The next word of a script of faults: a kind, whom it hits, or when."""
    return _quietly(lambda: _faults(ctx, incomplete))


def remote_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """`HOST:PATH`: hosts up to the colon, then what lies there."""
    return _quietly(lambda: _remote(ctx, incomplete))


def local_or_remote_paths(ctx: typer.Context, incomplete: str) -> list[str]:
    """The same, where a path of this machine makes sense too: that one is left to the shell."""
    return [] if "/" in incomplete.partition(":")[0] else remote_paths(ctx, incomplete)


def _quietly(find: Any) -> list[str]:
    """What it finds in time; else nothing, and not a word."""

    def give_up(*_: object) -> None:
        os._exit(0)  # a resolver that hangs cannot be ended in another way

    logging.disable()
    before, error = signal.signal(signal.SIGALRM, give_up), sys.stderr
    signal.setitimer(signal.ITIMER_REAL, _HARD)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            sys.stderr = nowhere
            return list(find())
    except Exception:
        return []
    finally:
        sys.stderr = error
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        logging.disable(logging.NOTSET)


def _desired(ctx: Any) -> Any:
    from reconciler.sources.directory import load

    return load(ctx.params.get("specs") or ctx.params.get("directory") or "specs")


def _unfinished(ctx: Any) -> list[str]:
    from reconciler.journal import open_journal
    from reconciler.runs import unfinished

    with open_journal(_desired(ctx).fleet.name, write=False) as journal:
        return [run.short for run, _ in unfinished(journal)]


def _begun(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _faults(ctx: Any, incomplete: str) -> list[str]:
    from reconciler.simulation.mishaps import ALL, KINDS, NAMES

    statement = incomplete.rpartition(";")[2]
    words = statement.split(" ")
    kind = next((word for word in words[:-1] if word), "")
    head = incomplete[: len(incomplete) - len(words[-1])]
    if not kind:
        return [f"{head}{name}" for name in _begun(NAMES, words[-1])]
    where = KINDS[kind].where if kind in KINDS else "controller"
    if len([word for word in words[:-1] if word]) == 1 and where != "controller":
        desired = _desired(ctx)
        known = [*(desired.hosts if where == "host" else desired.sessions), ALL]
    else:
        known = [word for word in ("at", "for") if word not in words]
    return [f"{head}{name}" for name in _begun(known, words[-1])]


def _remote(ctx: Any, incomplete: str) -> list[str]:
    desired = _desired(ctx)
    host, colon, path = incomplete.partition(":")
    if not colon:
        # Two for each, so that the shell puts no space after the colon.
        return [name + end for name in _begun(desired.hosts, host) for end in (":~/", ":/")]
    if host not in desired.hosts or not desired.hosts[host].enabled:
        return []
    if path == "~":
        return [f"{host}:~/"]
    return [f"{host}:{found}" for found in _listed(desired.hosts[host], host, path)]


def _listed(spec: Any, name: str, path: str) -> list[str]:
    import asyncio

    if any(word in str(_secrets(spec)) for word in ("${cmd:", "${keyring:")):
        return []
    policy = spec.host_key_policy if spec.host_key_policy == "accept_all" else "strict"
    careful = spec.model_copy(update={"host_key_policy": policy, "connection_timeout": _SOFT})
    return asyncio.run(_ask(careful, name, path))


def _secrets(spec: Any) -> list[str]:
    found = [getattr(spec.auth, key, None) for key in ("password", "passphrase")] if spec.auth else []
    return [value.get_secret_value() for value in found if value is not None]


async def _ask(spec: Any, name: str, path: str) -> list[str]:
    import asyncio

    from reconciler.hosts import Hosts

    directory, slash, begin = path.rpartition("/")
    directory += slash
    async with asyncio.timeout(_SOFT), Hosts() as hosts:
        transport = await hosts.connection(name, spec).transport()
        found: list[str] = []
        for _ in range(2):
            done = await transport.run(("sh", "-c", _LIST, "list", directory, begin), timeout=_SOFT, limit=1_000_000)
            names = [word.decode("utf-8", "replace") for word in done.out.split(b"\0")[:-1]]
            found = [f"{directory}{name}" for name in names if name.isprintable() and "\ufffd" not in name] or found
            if len(found) != 1 or not found[0].endswith("/"):
                break
            # One directory alone: what lies in it, so that the shell puts no space after it.
            directory, begin = found[0], ""
        return found
