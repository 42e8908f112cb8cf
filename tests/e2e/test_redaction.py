"""A secret that a host says back to us is shown to nobody and kept nowhere."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, Host
from tests.e2e.program import Program, Site, fleet_of, until
from tests.e2e.test_exactness import Watch, below

pytestmark = pytest.mark.e2e
NEEDLE = "n33dle"
VALUES = {
    "env": f"{NEEDLE}-of-env-'\"\\x\n2nd {NEEDLE} line",
    "file": f"{NEEDLE}-of-file-" + "long" * 60,
    "keyring": f"{NEEDLE}-of-keyring-ü",
}
# An agent that tells everybody its keys, and fails.
LEAKY = """
[agents.leaky]
command = "sh"
start = ["sh", "-c", "echo bad key: $K_ENV; echo $K_FILE >&2; echo \\"no: $K_KEYRING\\"; sleep 0.5; exit 3"]
"""


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with fleet_of("gpu") as made:
        yield made


@pytest.fixture
def gpu(fleet: Fleet) -> Host:
    return fleet.hosts["gpu"]


def keyring_at(directory: Path) -> Path:
    """What stands for the package keyring: its one function that we call, with a file for each entry."""
    (directory / "keyring").mkdir(parents=True)
    (directory / "keyring/__init__.py").write_text(
        "from pathlib import Path\n"
        "def get_password(service, user):\n"
        "    path = Path(__file__).parent / f'{service}.{user}'\n"
        "    return path.read_text() if path.exists() else None\n"
    )
    (directory / "keyring/work.api").write_text(VALUES["keyring"])
    return directory


def leaking(fleet: Fleet, program: Program, tmp_path: Path, strategy: str) -> None:
    """Specs with a session that says its secrets, which are ready to be had."""
    (tmp_path / "secret").write_text(VALUES["file"] + "\n")
    path = f"{keyring_at(tmp_path / 'modules')}:{program.environment()['PYTHONPATH']}"
    program.env = {"PYTHONPATH": path, "OUR_KEY": VALUES["env"]}
    references = (
        f'{{ K_ENV = "${{env:OUR_KEY}}", K_FILE = "${{file:{tmp_path}/secret}}", K_KEYRING = "${{keyring:work/api}}" }}'
    )
    session = f'[sessions.api]\nhost = "gpu"\nagent = "leaky"\nstrategy = "{strategy}"\nenv = {references}\n'
    program.write(f'{LEAKY}\n{session}\n[sessions.api.ready]\ncommand = "false"\ntimeout = "8s"\n')


@pytest.mark.parametrize("strategy", ["tmux", "process"])
def test_an_agent_that_prints_its_keys_and_fails_tells_them_nobody(
    fleet: Fleet, gpu: Host, tmp_path: Path, strategy: str
) -> None:
    program = Program(fleet, f"leak-{strategy}")
    leaking(fleet, program, tmp_path, strategy)
    with Watch(NEEDLE.encode()) as watch:
        done = program.run("-v", "-v", "--log-format", "json", "apply", "--auto-approve")
        assert done.returncode == 1, done.stderr
        assert "bad key: ***" in done.stdout
        said = [done, program.run("apply", "--auto-approve", "--json")]
        said += [program.run(*words) for words in (("history",), ("history", "--json"), ("why", "api"), ("status",),
                 ("status", "--json"), ("plan",), ("events",))]  # fmt: skip
        printed = program.run("logs", "api").stdout
    assert watch.found == []
    shown = "".join(each.stdout + each.stderr for each in said)
    assert NEEDLE not in shown
    # `logs` looks at variables and files for what to mask; a keyring, which may ask somebody, is left alone.
    assert "***" in printed
    assert NEEDLE not in printed.replace(VALUES["keyring"], "")
    assert below(fleet.controller_home, (NEEDLE.encode(),)) == []
    site = Site(gpu, program.name)
    # What it printed itself is its own log, which nobody but its user can read.
    for path in below(gpu.home, (NEEDLE.encode(),)):
        assert path.name in ("log", "log.old")
        assert path.is_relative_to(site.state)
        assert site.state.stat().st_mode & 0o077 == 0
    assert below(gpu.outside("/tmp"), (NEEDLE.encode(),)) == []


def test_a_controller_that_keeps_trying_says_them_to_nobody_either(fleet: Fleet, gpu: Host, tmp_path: Path) -> None:
    program = Program(fleet, "leak-run")
    leaking(fleet, program, tmp_path, "tmux")
    with program.start("-v", "run") as running:
        try:
            until("its failure", lambda: "exited" in program.run("history").stdout + program.run("events").stdout
                  or "***" in program.run("history").stdout)  # fmt: skip
            time.sleep(0.5)
            del program.env["OUR_KEY"]  # who asks knows none of them
            asked = [program.run(*words) for words in (("status", "--json"), ("why", "api"), ("plan",), ("events",))]
        finally:
            running.terminate()
            said, _ = running.communicate(timeout=20)
    shown = said + "".join(each.stdout + each.stderr for each in asked)
    assert "bad key: ***" in shown
    assert NEEDLE not in shown
    assert below(fleet.controller_home, (NEEDLE.encode(),)) == []


def test_a_password_that_the_host_says_back_is_masked(fleet: Fleet, tmp_path: Path) -> None:
    """Its banner is said before anybody has logged in, and stands in the error."""
    host = fleet.host("parrot", boot=False)
    (host.state / "banner").write_text(f"You said {NEEDLE}-pw, did you not?\n")
    config = host.state / "sshd_config"
    text = config.read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes")
    config.write_text(f"{text}PubkeyAuthentication no\nBanner /run/state/banner\n")
    host.boot()
    program = Program(fleet, "parrot")
    program.env = {"PW": f"{NEEDLE}-pw"}
    program.write('[hosts.parrot]\nauth = { type = "password", password = "${env:PW}" }\n')
    done = program.run("-v", "-v", "plan")
    doctor = program.run("doctor", "parrot")
    assert "You said ***, did you not?" in doctor.stdout
    assert NEEDLE not in done.stdout + done.stderr + doctor.stdout + doctor.stderr


def test_a_bug_says_no_secret_in_its_traceback(fleet: Fleet, tmp_path: Path) -> None:
    """A traceback as the program prints it, of a value that was resolved before."""
    program = Program(fleet, "bug")
    program.env = {"KEY": f"{NEEDLE}-bug", "RECONCILER_TRACEBACK": "1"}
    script = (
        "import sys; sys.argv = ['reconciler', 'validate']\n"
        "from reconciler import __main__\nimport reconciler.cli.validate as it\n"
        "from reconciler.secret_values import resolve\n"
        "def command():\n    raise RuntimeError('saw ' + resolve('${env:KEY}'))\n"
        "it.command = command\n__main__.main()\n"
    )
    done = subprocess.run(
        [program.argv()[0], "-c", script], env=program.environment(), cwd=program.directory, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 70
    assert re.search(r"RuntimeError: saw \*\*\*", done.stderr)
    assert NEEDLE not in done.stdout + done.stderr
