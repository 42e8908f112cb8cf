"""What the loop remembers of its attempts: how often something failed, when it is tried again, what waits. Pure.

The caller owns the clock and the dice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from reconciler.core.holds import Hold
from reconciler.core.report import Outcome

FIRST, CAP = 2.0, 600.0  # seconds: 2·2ⁿ with full jitter, ten minutes at the most
# No use in trying again before something has changed: the specs, or a person asks.
TERMINAL = frozenset({
    "auth-denied", "host-key-unknown", "host-key-changed", "host-key-mismatch", "passphrase-needed", "key-too-open",
    "bad-option",
    "other-conversation", "secret", "socket-path", "bug",
})  # fmt: skip
# Not a failure of the session: nothing was tried, and the next look tells.
NOT_TRIED = frozenset({"withdrawn", "interrupted", "stale", "dependency"})


@dataclass(frozen=True)
class Attempt:
    """What came of the last attempts at one address. `again` is a time of the loop's clock; None when stalled."""

    failures: int
    again: float | None
    code: str
    message: str
    remedy: str = ""

    @property
    def stalled(self) -> bool:
        """Whether nothing is tried any more until something changes."""
        return self.again is None


@dataclass(frozen=True)
class Memory:
    """All attempts that failed and were not made good since. Bounded by the addresses of the fleet."""

    attempts: Mapping[str, Attempt] = field(default_factory=dict)

    def told(self, outcomes: Iterable[Outcome], now: float, dice: float) -> Memory:
        """After outcomes. `dice` is a random number in [0, 1)."""
        attempts = dict(self.attempts)
        for outcome in outcomes:
            if outcome.status == "done":
                attempts.pop(outcome.address, None)
            elif outcome.status in ("failed", "unknown") and outcome.code not in NOT_TRIED:
                attempts[outcome.address] = _failed(attempts.get(outcome.address), outcome, now, dice)
        return replace(self, attempts=attempts)

    def only(self, addresses: Iterable[str]) -> Memory:
        """Without what is no part of the fleet any more."""
        kept = set(addresses)
        return replace(self, attempts={k: attempt for k, attempt in self.attempts.items() if k in kept})

    def forget(self, addresses: Iterable[str]) -> Memory:
        """Something changed there, or a person asks: it is tried at once."""
        gone = set(addresses)
        return replace(self, attempts={k: attempt for k, attempt in self.attempts.items() if k not in gone})

    def hold(self, now: float) -> dict[str, Hold]:
        """What has to wait, and why."""
        return {
            address: _hold(address, attempt, now)
            for address, attempt in self.attempts.items()
            if attempt.again is None or attempt.again > now
        }

    def next(self, now: float) -> float | None:
        """When the first of those that wait is tried again."""
        return min((a.again for a in self.attempts.values() if a.again is not None and a.again > now), default=None)


def back_off(failures: int, dice: float) -> float:
    """Seconds until the next attempt after so many failures in a row."""
    return float(min(CAP, FIRST * 2.0 ** min(failures - 1, 30)) * dice)


def _failed(before: Attempt | None, outcome: Outcome, now: float, dice: float) -> Attempt:
    failures = (before.failures if before else 0) + 1
    again = None if outcome.code in TERMINAL else now + back_off(failures, dice)
    return Attempt(failures, again, outcome.code, outcome.message, outcome.remedy)


def _hold(address: str, attempt: Attempt, now: float) -> Hold:
    times = "once" if attempt.failures == 1 else f"{attempt.failures} times"
    if attempt.again is None:
        remedy = attempt.remedy or f"reconciler reconcile {address}"
        return Hold("stalled", f"failed {times}, and waits for a change: {attempt.message}", remedy)
    wait = max(0.0, attempt.again - now)
    return Hold("back-off", f"failed {times}, again in {wait:.0f} s: {attempt.message}", attempt.remedy)
