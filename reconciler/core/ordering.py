"""In which order actions may be carried out one by one, and which of them belong together."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import TopologicalSorter
from heapq import heapify, heappop, heappush

from reconciler.core.actions import Action
from reconciler.core.spec import Desired


def dependents(desired: Desired) -> list[str]:
    """The sessions that depend on others, each after those that it depends on, so that a blocked one blocks the whole
    chain behind it.

    With a stack of its own: chains of thousands are no recursion.
    """
    edges = {
        name: [dependency.session for dependency in session.depends_on]
        for name, session in desired.sessions.items()
        if session.depends_on
    }
    found: dict[str, None] = {}
    for start in edges:
        pending = [start]
        while pending:
            lacking = [name for name in edges[pending[-1]] if name in edges and name not in found]
            if lacking:
                pending += lacking
            else:
                found[pending.pop()] = None
    return list(found)


def ordered(actions: Iterable[Action]) -> list[Action]:
    """Dependencies first; apart from that as declared."""
    found = list(actions)
    if not any(action.after for action in found):
        return found
    place = {action.address: index for index, action in enumerate(found)}
    graph = {
        index: [place[first] for first in action.after if first in place]
        for index, action in enumerate(found)
        if action.after
    }
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    tied = {*graph, *(first for before in graph.values() for first in before)}
    # Most wait for nothing and nothing waits for them: those are in order already, and no part of the graph.
    free = iter([*(index for index in range(len(found)) if index not in tied), len(found)])
    ready = list(sorter.get_ready())
    heapify(ready)
    order: list[Action] = []
    following = next(free)
    while ready or following < len(found):
        if not ready or following < ready[0]:
            order.append(found[following])
            following = next(free)
            continue
        index = heappop(ready)
        order.append(found[index])
        sorter.done(index)
        for released in sorter.get_ready():
            heappush(ready, released)
    return order


def components(actions: Iterable[Action]) -> list[tuple[Action, ...]]:
    """Actions in groups that have nothing to do with each other: those that wait for one another stay together."""
    found = list(actions)
    group = list(range(len(found)))
    place: dict[str, int] = {}
    for index, action in enumerate(found):
        place.setdefault(action.address, index)

    def root(index: int) -> int:
        while group[index] != index:
            group[index] = group[group[index]]
            index = group[index]
        return index

    for index, action in enumerate(found):
        for first in (action.address, *action.after):
            if first in place:
                group[root(index)] = root(place[first])
    together: dict[int, list[Action]] = {}
    for index, action in enumerate(found):
        together.setdefault(root(index), []).append(action)
    return [tuple(members) for members in together.values()]
