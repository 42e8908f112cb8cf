"""What is made of specs and of looks: difference, plan, its printed forms, statuses. All of it is shown to people."""

from __future__ import annotations

import json
from dataclasses import asdict

from fuzz.oracles import harmless
from reconciler import drivers
from reconciler.core.diff import announced, compare
from reconciler.core.markdown import markdown
from reconciler.core.observed import HostSeen, Observed, Reached, Unreached
from reconciler.core.plan import Plan, make_plan
from reconciler.core.printed import escaped, plan_json, render
from reconciler.core.saved import bounded, parse_saved, to_json
from reconciler.core.spec import Desired
from reconciler.core.status import statuses
from reconciler.reconcile import agents_seen

EMPTY = Reached(
    name="", hostname="h", user="me", home="/home/me", system="Linux", machine="m", boot="b",
    state_dir="/home/me/.local/state/reconciler/default", now=1_800_000_000, fence=1, path="/usr/bin", tmux="tmux 3.4",
    shell="/bin/bash",
)  # fmt: skip


def plan_of(desired: Desired, hosts: dict[str, HostSeen]) -> Plan:
    """As a pass makes it."""
    observed = Observed(hosts)
    agents = drivers.agents(desired, agents_seen(observed))
    diff = compare(desired, observed, announced(observed))
    plan = make_plan(diff, desired, observed, agents, plan_id="0" * 32, controller="me")
    for status in statuses(desired, observed, diff, plan, agents):
        json.dumps(asdict(status))
        harmless(escaped(status.message))
    return plan


def check_plan(desired: Desired, seen: HostSeen | None = None) -> Plan:
    """The plan against one host as it was seen, all others being empty; and everything that it is printed as."""
    hosts: dict[str, HostSeen] = {name: EMPTY for name, host in desired.hosts.items() if host.enabled}
    if seen is not None:
        hosts[seen.name] = seen
    else:
        hosts["local"] = Unreached("local", "refused", "local: refused")
    plan = plan_of(desired, hosts)
    harmless(render(plan))
    harmless(markdown(plan, "main"))
    json.dumps(plan_json(plan))
    saved = parse_saved(to_json(plan, 1_800_000_000.0))
    kept, outcomes = bounded(saved, plan)
    assert kept.actions == tuple(plan.effective), "a plan does not permit itself"
    assert not outcomes
    return plan
