"""Find a driver by the name in the spec: it is its file's name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import cast

from reconciler.agents.template import Template, customise, from_template
from reconciler.core.agent import Agent
from reconciler.core.spec import AgentSpec, Desired
from reconciler.errors import SpecError
from reconciler.runtimes import Runtime


@cache
def _shipped(path: str) -> bool:
    """Looks at the disk: not at every look at a host, for each agent of the specs' own."""
    return find_spec(path) is not None


def _module(kind: str, name: str) -> ModuleType:
    path = f"reconciler.{kind}.{name.replace('-', '_')}"
    if name.startswith("_") or not _shipped(path):
        raise SpecError(f"there is no {kind[:-1]} {name!r}")
    return import_module(path)


@cache
def runtime(strategy: str) -> Runtime:
    """The runtime of a strategy."""
    return cast("Runtime", _module("runtimes", strategy).RUNTIME)


def transport(name: str) -> ModuleType:
    """The module of a transport; its `connect` opens one."""
    return _module("transports", name)


@cache
def built_in_agent(name: str) -> Agent:
    """A driver as it is shipped."""
    agent = getattr(_module("agents", name), "AGENT", None)
    if agent is None:
        raise SpecError(f"there is no agent {name!r}")
    return cast("Agent", agent)


def _template(name: str, spec: AgentSpec) -> Template:
    given = {key: getattr(spec, key) for key in spec.model_fields_set if key != "extends"}
    return Template(name=name, **{key: value for key, value in given.items() if value is not None})


def agents(desired: Desired, also: frozenset[str] = frozenset()) -> Mapping[str, Agent]:
    """The drivers of all agents that the specs use or declare, and those of `also` that exist."""
    wanted = {session.agent for session in desired.sessions.values()} | set(desired.agents)
    found: dict[str, Agent] = {}
    for name in sorted(wanted | also):
        try:
            found[name] = _agent(desired, name)
        except SpecError:
            if name in wanted:
                raise
    return found


def _agent(desired: Desired, name: str, seen: tuple[str, ...] = ()) -> Agent:
    spec = desired.agents.get(name)
    if spec is None:
        return built_in_agent(name)
    if name in seen:
        return built_in_agent(name)
    template = _template(name, spec)
    if spec.extends and spec.extends != name:
        return customise(_agent(desired, spec.extends, (*seen, name)), template)
    try:
        return customise(built_in_agent(name), template)
    except SpecError:
        return from_template(template)
