"""Agents that a table `[agents.NAME]` declares by argv templates, and overrides of built-in ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from reconciler.agents import _globs, _replies, _shared
from reconciler.core.agent import (
    UNKNOWN,
    WORKDIR,
    Activity,
    Agent,
    Claim,
    Facts,
    Invocation,
    LaunchRequest,
    Login,
    Probe,
    Reply,
    Stop,
)
from reconciler.errors import OperationError, SpecError

_PLACEHOLDER = re.compile(r"\{(session_id|prompt|model|workdir|command)\}")
PromptVia = Literal["argv", "stdin", "paste"]


@dataclass(frozen=True)
class Template:
    """One `[agents.NAME]` table; None and empty mean: not given.

    An element of an argv template that is exactly `{args}` stands for all arguments of the launch; without one
    they follow at the end.
    """

    name: str
    command: str = ""
    args: tuple[str, ...] = ()
    start: tuple[str, ...] | None = None
    resume: tuple[str, ...] | None = None
    turn: tuple[str, ...] | None = None
    resume_turn: tuple[str, ...] | None = None
    read_only: tuple[str, ...] = ()
    prompt_via: PromptVia | None = None
    store: tuple[str, ...] = ()
    version_args: tuple[str, ...] | None = None
    ready_pattern: str | None = None
    stop_keys: tuple[str, ...] | None = None
    install: str = ""
    model: str | None = None
    permission_mode: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


def from_template(template: Template) -> Agent:
    """An agent that consists of a template alone."""
    return _Templated(None, template)


def customise(base: Agent, template: Template) -> Agent:
    """`base` with the parts that the template gives put over it; what it leaves out stays as it is."""
    return _Templated(base, template)


class _Templated:
    """A template over a base agent, or over none."""

    def __init__(self, base: Agent | None, template: Template) -> None:
        self._base = base
        self._template = template
        self.name = template.name
        self.command = template.command or (base.command if base else template.name)
        self.install = template.install or (base.install if base else "")
        self.assigns_id = base.assigns_id if base else True
        self.resumable = template.resume is not None or bool(base and base.resumable)
        plain = template.turn is None and template.resume_turn is None
        self.can_be_read_only = bool(template.read_only or (plain and base and base.can_be_read_only))
        self.activity_source = bool(base and base.activity_source)
        given = template.version_args
        self.version_args = given if given is not None else base.version_args if base else ("--version",)
        self.known_versions = base.known_versions if base else ""
        self.login = base.login if base else Login()
        self.ready_pattern = template.ready_pattern

    def start(self, request: LaunchRequest) -> Invocation:
        """By the template `start`, else as the base does, else the command alone."""
        if self._template.start is None and self._base:
            return self._on_screen(self._base.start, request)
        return self._run(self._template.start or ("{command}",), request, headless=False)

    def resume(self, request: LaunchRequest) -> Invocation:
        """By the template `resume`, else as the base does; without both it starts again."""
        if self._template.resume is not None:
            return self._run(self._template.resume, request, headless=False)
        return self._on_screen(self._base.resume, request) if self._base else self.start(request)

    def turn(self, request: LaunchRequest) -> Invocation:
        """By the template `turn`, else as the base does."""
        if self._template.turn is not None:
            return self._run(self._template.turn, request, headless=True)
        if self._base:
            return self._base.turn(self._piped("turn", request, self._base))
        raise self._cannot("turn")

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """By the template `resume_turn`, else as the base does."""
        if self._template.resume_turn is not None:
            return self._run(self._template.resume_turn, request, headless=True)
        if self._base:
            return self._base.resume_turn(self._piped("resume_turn", request, self._base))
        raise self._cannot("resume_turn")

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """As the base reads it; a template alone prints its answer and nothing else."""
        return self._base.reply(exit, out, err) if self._base else _replies.plain(self.name, exit, out, err)

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """The store globs of the template, in place of those of the base."""
        kept = self._base.probes(session_id) if self._base else ()
        globs = [glob for glob in self._template.store if session_id is not None or "{session_id}" not in glob]
        if not self._template.store:
            return kept
        named = (Probe(f"store{number or ''}", "store", glob) for number, glob in enumerate(globs))
        return (*(probe for probe in kept if probe.kind != "store"), *named)

    def activity(self, facts: Facts) -> Activity:
        """As the base tells; a template alone has no source."""
        return self._base.activity(facts) if self._base else UNKNOWN

    def conversation(self, facts: Facts) -> str | None:
        """As the base tells; a template alone runs with the id that we gave it."""
        return self._base.conversation(facts) if self._base else None

    def works_on(self, facts: Facts) -> str | None:
        """Where `{session_id}` stands in the templates, else as the base tells."""
        told = self._base.works_on(facts) if self._base else None
        argv = _shared.argv_of(facts)
        ways = (way for way in (self._template.start, self._template.resume) if way is not None)
        found = [_found_at((way[0].replace("{command}", self.command), *way[1:]), argv) for way in ways if way]
        return told or next((name for name in found if name), None)

    def exists(self, facts: Facts) -> bool | None:
        """Whether a file of its store is there and not empty."""
        if not self.resumable:
            return False
        if self._base and not self._template.store:
            return self._base.exists(facts)
        if not self._template.store or facts.store is None:
            return None
        return any(file.size > 0 for file in facts.store)

    def ready(self, facts: Facts) -> bool | None:
        """As the base tells; `ready_pattern` is matched against the screen by whoever has one."""
        return self._base.ready(facts) if self._base else None

    def paste_text(self, text: str) -> str:
        """As the base does, else with a first `!`, `/` or `#` defused."""
        return self._base.paste_text(text) if self._base else _shared.pasteable(text)

    def clean_stop(self) -> Stop:
        """The `stop_keys` of the template, then the signal."""
        stop = self._base.clean_stop() if self._base else Stop()
        return stop if self._template.stop_keys is None else replace(stop, keys=self._template.stop_keys)

    def parse_version(self, output: str) -> str | None:
        """As the base reads it, else the first dotted number."""
        if self._base and self._template.version_args is None:
            return self._base.parse_version(output)
        found = re.search(r"\d+\.\d+(?:\.\d+)*\S*", output)
        return found[0] if found else None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """By the store globs of the template, else as the base names it."""
        if self._template.store:
            return _globs.archive_name(self._template.store, path, session_id)
        return self._base.archive_name(path, session_id) if self._base else None

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """By the store globs of the template, else as the base places it."""
        if self._template.store:
            return _globs.restore_path(self._template.store, name, session_id)
        return self._base.restore_path(name, session_id, workdir) if self._base else None

    def claim(self, workdir: str) -> Claim | None:
        """As the base does."""
        claim = None if self._template.store else getattr(self._base, "claim", None)
        return claim(workdir) if claim else None

    def export_args(self, session_id: str) -> tuple[str, ...] | None:
        """As the base does, unless the template has a store of its own."""
        return self._base.export_args(session_id) if self._base and not self._template.store else None

    def import_args(self, file: str) -> tuple[str, ...] | None:
        """As the base does, unless the template has a store of its own."""
        return self._base.import_args(file) if self._base and not self._template.store else None

    def transfer_env(self, session_dir: str) -> dict[str, str]:
        """As the base needs it."""
        needed = getattr(self._base, "transfer_env", None)
        return dict(needed(session_dir)) if needed else {}

    def store_version(self, head: str) -> str | None:
        """As the base knows it; files of a template's own store are taken as they are."""
        return self._base.store_version(head) if self._base and not self._template.store else None

    def _merged(self, request: LaunchRequest) -> LaunchRequest:
        """The request with what the template adds to every launch; what the session says wins."""
        return replace(
            request,
            model=request.model or self._template.model,
            permission_mode=request.permission_mode or self._template.permission_mode,
            args=(*self._template.args, *request.args),
            env={**self._template.env, **request.env},
        )

    def _on_screen(self, launch: Callable[[LaunchRequest], Invocation], request: LaunchRequest) -> Invocation:
        """The base's own launch, with the prompt pasted later where the template wants it so."""
        merged = self._merged(request)
        if self._template.prompt_via != "paste" or not merged.prompt:
            return launch(merged)
        return replace(launch(replace(merged, prompt=None)), delivered="paste")

    def _piped(self, way: str, request: LaunchRequest, base: Agent) -> LaunchRequest:
        """The base's own headless launch decides how the prompt travels; another wish needs a template."""
        if self._template.prompt_via == "stdin":
            raise SpecError(f'{self.name}: prompt_via = "stdin" needs a template `{way}` of its own')
        if not request.read_only:
            return self._merged(request)
        return replace(self._held(self._merged(request)), read_only=base.can_be_read_only)

    def _held(self, request: LaunchRequest) -> LaunchRequest:
        """A read-only turn takes the words of the template along, or is refused."""
        if not self.can_be_read_only:
            raise _shared.not_read_only(
                self.name, "it has no `read_only`", f"`read_only = [...]` in [agents.{self.name}]"
            )
        return replace(request, args=(*request.args, *self._template.read_only))

    def _run(self, argv: tuple[str, ...], request: LaunchRequest, *, headless: bool) -> Invocation:
        merged = self._merged(request)
        if headless and request.read_only:
            merged = self._held(merged)
        _shared.mode_args(self.name, {}, merged.permission_mode)  # a template has no place for one: refuse it
        if merged.model and not any("{model}" in part for part in argv):
            raise SpecError(f"{self.name}: a model is set, but the template has no {{model}}")
        via = self._via(argv, headless)
        prompt = merged.prompt or ""
        if via == "argv" and not _shared.fits_argv(prompt):
            message = f"{self.name}: the prompt is over 100 kB, too long for an argument"
            raise OperationError(message, code="prompt-refused", remedy='set prompt_via = "stdin" or "paste"')
        values = {
            "session_id": merged.session_id or "",
            "prompt": prompt if via == "argv" else "",
            "model": merged.model or "",
            "workdir": WORKDIR,
            "command": merged.command,
        }
        full = _expand(argv, values, merged.args)
        if not merged.prompt:
            return Invocation(full, merged.env)
        return Invocation(full, merged.env, stdin=prompt if via == "stdin" else None, delivered=via)

    def _via(self, argv: tuple[str, ...], headless: bool) -> PromptVia:
        """How the prompt travels. A prompt is never lost in silence: a way that cannot work is an error."""
        holds = any("{prompt}" in part for part in argv)
        asked = self._template.prompt_via
        if asked == "argv" and not holds:
            raise SpecError(f'{self.name}: prompt_via = "argv", but the template has no {{prompt}}')
        # One key serves both kinds of launch: stdin of a TUI is its keyboard, a headless run has none.
        unfit = asked is None or asked == ("paste" if headless else "stdin")
        if asked is not None and not unfit:
            return asked
        return "argv" if holds else "stdin" if headless else "paste"

    def _cannot(self, what: str) -> OperationError:
        return OperationError(
            f"agent {self.name} has no template `{what}`, so it cannot take a headless turn",
            code="failed",
            remedy=f"add `{what} = [...]` to [agents.{self.name}]",
        )


def _found_at(template: tuple[str, ...], argv: tuple[str, ...]) -> str | None:
    """What stands for `{session_id}` in a command that was made by a template. Whatever comes before has to fit."""
    program = template[0].rpartition("/")[2]
    start = next((n for n, word in enumerate(argv[:2]) if word.rpartition("/")[2] == program), None)
    for part, word in zip(template, argv[start:] if start is not None else (), strict=False):
        if part == "{session_id}":
            return word if _shared.is_id(word) else None
        if part == "{args}" or not (_PLACEHOLDER.search(part) or part in (word, template[0])):
            return None
    return None


def _expand(argv: tuple[str, ...], values: Mapping[str, str], args: tuple[str, ...]) -> tuple[str, ...]:
    """Fill in the placeholders, once: what a value holds is never looked at again."""
    parts: list[str] = []
    for part in argv if "{args}" in argv else (*argv, "{args}"):
        if part == "{args}":
            parts.extend(args)
        else:
            parts.append(_PLACEHOLDER.sub(lambda found: values[found[1]], part))
    return tuple(parts)
