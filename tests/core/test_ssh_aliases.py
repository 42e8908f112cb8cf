"""Hosts that an SSH config names: which ones, and what they become."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconciler.core.parse import parse
from reconciler.core.ssh_aliases import Alias, aliases, tables
from reconciler.core.values import is_host_token

CONFIG = """
# Host commented
Host gpu gpu-2
  HostName 10.0.0.1
  User ops
Host *.internal !bad web?
  User x
Host=quoted
  HostName="10.0.0.2"
Match host gpu exec "true"
  HostName 192.0.2.1
Host github.com
  User git
Host work
  HostName git.example.com
  User git
HOST Upper.Case
"""


def test_names_are_hosts_and_patterns_are_none() -> None:
    found = aliases(CONFIG.splitlines())
    assert [alias.name for alias in found] == ["gpu", "gpu-2", "quoted", "github.com", "work", "Upper.Case"]
    assert found[0] == Alias("gpu", "10.0.0.1", "ops")
    assert found[2].address == "10.0.0.2"
    assert [alias.name for alias in found if alias.only_git] == ["github.com", "work"]


def test_what_is_no_name_of_ours_keeps_its_own_as_an_address() -> None:
    texts = tables([Alias("Upper.Case"), Alias("upper-case"), Alias("gpu"), Alias("local")], {"gpu": "gpu"})
    assert texts == {
        "upper-case": '[hosts.upper-case]\naddress = "Upper.Case"\n',
        "upper-case-2": '[hosts.upper-case-2]\naddress = "upper-case"\n',
        "host-local": '[hosts.host-local]\naddress = "local"\n',
    }


def test_what_the_specs_reach_already_is_not_added_again() -> None:
    assert tables([Alias("gpu.example.com")], {"gpu": "gpu.example.com"}) == {}


@given(st.lists(st.text(st.sampled_from('aB.-_"\\é0/ '), min_size=1, max_size=12), max_size=5, unique=True))
def test_whatever_a_config_names_the_tables_are_valid_specs(names: list[str]) -> None:
    texts = tables([Alias(name) for name in names], {})
    desired = parse({"hosts.toml": "[fleet]\n" + "\n".join(texts.values())}, {})
    assert set(texts) <= set(desired.hosts)
    assert {desired.hosts[name].address or name for name in texts} == {name for name in names if is_host_token(name)}
