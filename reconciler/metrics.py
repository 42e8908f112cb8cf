"""What `run` shows to Prometheus: counts by phase and condition, looks, decisions, actions; never a text of a host."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from reconciler import __version__
from reconciler.core.report import Event
from reconciler.core.status import Status

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


@dataclass(frozen=True)
class Now:
    """What is read at each scrape: statuses, the revision in force, when hosts answered last, notices sent."""

    statuses: tuple[Status, ...]
    revision: str | None
    looked: Mapping[str, float | None]
    told: Mapping[tuple[str, str], int]


class Metrics:
    """All metrics of one controller, in a registry of their own."""

    def __init__(self, now: Callable[[], Now]) -> None:
        """`now` is called on the thread of the server."""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_State(now))
        self._looks = Histogram(
            "reconciler_look_seconds", "Looks at hosts, with connecting where that was needed.", ("outcome",),
            registry=self._registry, buckets=_SECONDS,
        )  # fmt: skip
        self._decisions = Histogram(
            "reconciler_decide_seconds", "Comparing and planning.", registry=self._registry, buckets=_SECONDS
        )
        self._actions = Histogram(
            "reconciler_action_seconds", "Actions carried out.", ("verb", "outcome"), registry=self._registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._changes = Counter(
            "reconciler_transitions", "Changes of a phase or condition.", ("type",), registry=self._registry
        )

    def looked(self, reached: bool, seconds: float) -> None:
        """A look at a host."""
        self._looks.labels("reached" if reached else "unreached").observe(seconds)

    def decided(self, seconds: float) -> None:
        """A comparison of everything."""
        self._decisions.observe(seconds)

    def event(self, event: Event) -> None:
        """A step of an action."""
        outcome = {"apply_complete": "done", "apply_errored": "failed", "apply_skipped": "skipped"}.get(event.type)
        if outcome is not None:
            self._actions.labels(event.action.verb, outcome).observe(event.seconds)

    def changed(self, kind: str) -> None:
        """A transition."""
        self._changes.labels(kind).inc()

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self._registry)


class _State(Collector):
    """What is, at the moment of the scrape."""

    def __init__(self, now: Callable[[], Now]) -> None:
        self._now = now

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterator[Metric]:
        now = self._now()
        sessions = [status for status in now.statuses if status.address.startswith(("session.", "group_chat."))]
        yield _tally("reconciler_sessions", "Sessions by host and phase.", ("host", "phase"),
                     ((s.host, s.phase) for s in sessions))  # fmt: skip
        yield _tally("reconciler_conditions", "Sessions by condition.", ("type", "status"),
                     ((c.type, c.status) for s in sessions for c in s.conditions))  # fmt: skip
        reachable = GaugeMetricFamily("reconciler_host_reachable", "Whether a host answers.", labels=("host",))
        for status in now.statuses:
            if status.address.startswith("host."):
                reachable.add_metric((status.host,), float(status.phase == "ready"))
        yield reachable
        answered = GaugeMetricFamily(
            "reconciler_host_last_answer_timestamp_seconds", "When a host answered last.", labels=("host",)
        )
        for name, at in now.looked.items():
            if at is not None:
                answered.add_metric((name,), at)
        yield answered
        healthy = all(s.phase != "stalled" for s in now.statuses if s.address.startswith("source."))
        yield GaugeMetricFamily(
            "reconciler_source_ready", "Whether the newest revision is in force.", value=float(healthy)
        )
        info = GaugeMetricFamily(
            "reconciler_info", "The version, and the revision in force.", labels=("version", "revision")
        )
        info.add_metric((__version__, now.revision or ""), 1.0)
        yield info
        told = GaugeMetricFamily("reconciler_notices", "Messages to notifiers.", labels=("notifier", "outcome"))
        for key, count in now.told.items():
            told.add_metric(key, float(count))
        yield told


def _tally(name: str, words: str, labels: tuple[str, ...], found: Iterable[tuple[str, ...]]) -> Metric:
    family = GaugeMetricFamily(name, words, labels=labels)
    for key, count in sorted(Tally(found).items()):
        family.add_metric(key, float(count))
    return family
