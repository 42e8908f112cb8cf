"""The fleet of test hosts is what it claims to be: apart from each other, mortal, and gone afterwards."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.fleet import Fleet, sweep

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).parents[2]


def ssh(fleet: Fleet, name: str, command: str, timeout: float = 20.0) -> subprocess.CompletedProcess[str]:
    argv = ["ssh", "-F", str(fleet.ssh_config), "-o", "BatchMode=yes", name, command]
    return subprocess.run(argv, env=fleet.env, capture_output=True, text=True, timeout=timeout, check=False)


def needs_namespaces(fleet: Fleet) -> None:
    if not fleet.namespaces:
        pytest.skip("hosts have namespaces of their own only for root on Linux")


def test_the_controller_reaches_a_host_by_its_name_and_a_strict_host_key(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    done = subprocess.run(
        ["ssh", "-F", str(fleet.ssh_config), "-o", "StrictHostKeyChecking=yes", "gpu", 'echo "$HOME"'],
        env=fleet.env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == host.inner_home


def test_a_file_written_from_outside_is_there_inside_and_belongs_to_the_user(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    host.write("~/deep/er/hello", "hi\n", mode=0o640)
    assert host.exec(["cat", "deep/er/hello"]).stdout == "hi\n"
    assert ssh(fleet, "gpu", "touch ~/deep/er/mine && stat -c %a ~/deep/er/hello").stdout == "640\n"
    assert (host.home / "deep/er/mine").exists()


def test_hosts_share_no_processes_no_tmp_and_no_name(fleet: Fleet) -> None:
    needs_namespaces(fleet)
    one, two = fleet.host("one"), fleet.host("two")
    one.exec(["sh", "-c", "sleep 1234 >/dev/null 2>&1 & touch /tmp/of-one"])
    assert [argv for _, argv in one.processes() if argv[0] == "sleep"] == [["sleep", "1234"]]
    assert not [argv for _, argv in two.processes() if argv[0] == "sleep"]
    assert "sleep 1234" not in two.exec(["ps", "ax"]).stdout
    assert two.exec(["ls", "/tmp"]).stdout == ""
    assert [host.exec(["hostname"]).stdout.strip() for host in (one, two)] == ["one", "two"]
    assert one.exec(["cat", "/etc/machine-id"]).stdout != two.exec(["cat", "/etc/machine-id"]).stdout


def test_a_pid_seen_inside_is_the_pid_that_the_fixture_reports(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    pid = int(host.exec(["sh", "-c", "sleep 1234 >/dev/null 2>&1 & echo $!"]).stdout)
    assert (pid, ["sleep", "1234"]) in host.processes()


def test_a_reboot_ends_every_process_keeps_the_home_and_has_a_new_boot_id(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    boot_id = host.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout
    host.write("~/kept", "x")
    host.exec(["sh", "-c", "setsid sleep 1234 >/dev/null 2>&1 &"])
    host.reboot()
    assert not [argv for _, argv in host.processes() if argv[0] == "sleep"]
    assert ssh(fleet, "gpu", "cat kept").stdout == "x"
    if fleet.namespaces:
        assert host.exec(["cat", "/proc/sys/kernel/random/boot_id"]).stdout != boot_id


def test_a_power_cut_is_silent_to_those_who_are_connected(fleet: Fleet) -> None:
    needs_namespaces(fleet)
    host = fleet.host("gpu")
    with socket.create_connection((host.address, host.port), timeout=2) as connection:
        assert connection.recv(4) == b"SSH-"
        connection.recv(4096)
        host.power_cut()
        connection.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.recv(1)
    with pytest.raises(TimeoutError):
        socket.create_connection((host.address, host.port), timeout=0.5)


def test_with_the_cable_out_connects_time_out_and_work_goes_on(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    host.exec(["sh", "-c", "sleep 1234 >/dev/null 2>&1 &"])
    host.cable_out()
    with pytest.raises((TimeoutError, subprocess.TimeoutExpired)):
        ssh(fleet, "gpu", "true", timeout=1)
    host.cable_in()
    assert ssh(fleet, "gpu", "true").returncode == 0
    assert [argv for _, argv in host.processes() if argv[0] == "sleep"]


def test_a_frozen_host_answers_nothing_until_it_thaws(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    host.freeze()
    with socket.create_connection((host.address, host.port), timeout=0.5) as connection, pytest.raises(TimeoutError):
        connection.recv(1)
    host.thaw()
    assert ssh(fleet, "gpu", "true").returncode == 0


def test_a_full_disk_refuses_files_until_it_is_freed(fleet: Fleet) -> None:
    needs_namespaces(fleet)
    host = fleet.host("gpu", home_size="2m")
    host.fill_disk()
    assert "No space left" in host.exec(["cp", "/etc/passwd", "new"]).stderr
    host.free_disk()
    assert host.exec(["sh", "-c", "echo x > new"]).returncode == 0


@pytest.mark.parametrize("shell", ["/usr/bin/zsh", "/bin/mksh", "/bin/sh"])
def test_a_host_can_have_another_login_shell(fleet: Fleet, shell: str) -> None:
    needs_namespaces(fleet)
    host = fleet.host("gpu", shell=shell)
    host.write("~/.profile", "PATH=/opt/mine:$PATH\n")
    assert ssh(fleet, "gpu", 'echo "$SHELL"').stdout.strip() == shell


def test_a_path_of_this_machine_can_be_shown_to_a_host(fleet: Fleet, tmp_path: Path) -> None:
    needs_namespaces(fleet)
    (tmp_path / "tool").write_text("here")
    host = fleet.host("gpu", user="root", binds=[str(tmp_path)])
    assert host.exec(["cat", f"{tmp_path}/tool"]).stdout == "here"


def test_a_host_reaches_a_server_of_the_test_and_fails_fast_on_unknown_names(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    with socket.create_server((fleet.controller_address, 0)) as server:
        port = server.getsockname()[1]
        done = host.exec(["bash", "-c", f"exec 3<>/dev/tcp/{fleet.controller_address}/{port}"])
        assert done.returncode == 0, done.stderr
    started = time.monotonic()
    assert host.exec(["getent", "hosts", "no-such-host.invalid"]).returncode != 0
    assert time.monotonic() - started < 3


def test_testinfra_looks_at_a_host(fleet: Fleet) -> None:
    host = fleet.host("gpu")
    host.write("~/hello", "hi")
    assert host.testinfra().file(f"{host.inner_home}/hello").content_string == "hi"


def test_the_environment_of_the_controller_is_scrubbed(fleet: Fleet) -> None:
    assert set(fleet.env) == {"PATH", "HOME", "LANG", "TERM"}


def test_two_fleets_do_not_meet() -> None:
    with Fleet() as one, Fleet() as two:
        hosts = one.host("gpu"), two.host("gpu")
        assert (hosts[0].address, hosts[0].port) != (hosts[1].address, hosts[1].port)
        hosts[0].power_cut()
        assert ssh(two, "gpu", "true").returncode == 0


def test_nothing_outlives_a_test_run_that_is_killed() -> None:
    script = "from tests.e2e.fleet import Fleet; import time\nf = Fleet(); h = f.host('gpu')\n"
    script += "h.exec(['sh', '-c', 'setsid sleep 4321 >/dev/null 2>&1 &'])\n"
    script += "print(f.root, f.network, flush=True); time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as run:
        assert run.stdout is not None
        root, network = run.stdout.readline().split()
        run.send_signal(signal.SIGKILL)
    if network == "0":
        sweep()
    end = time.monotonic() + 5
    while time.monotonic() < end and _runs("4321"):
        time.sleep(0.05)
    assert not _runs("4321")
    sweep()
    assert not Path(root).exists()
    assert not Path(f"/sys/class/net/rct{network}").exists()
    assert root not in Path("/proc/mounts").read_text() if sys.platform == "linux" else True


def _runs(word: str) -> bool:
    done = subprocess.run(["ps", "-A", "-o", "args"], capture_output=True, text=True, check=True)
    return f"sleep {word}" in done.stdout.splitlines()
