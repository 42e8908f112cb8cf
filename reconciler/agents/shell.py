"""A plain command: the session's `args` are what runs; there is no conversation."""

from __future__ import annotations

from reconciler.agents import _replies, _shared
from reconciler.core.agent import UNKNOWN, Activity, Facts, Invocation, LaunchRequest, Login, Probe, Reply, Stop


class Shell:
    """The driver for anything that is no agent: a server, a watcher, a shell."""

    name = "shell"
    command = "sh"
    install = ""
    assigns_id = False
    resumable = False
    can_be_read_only = False
    activity_source = False
    version_args: tuple[str, ...] = ()
    login = Login()
    known_versions = ""

    def start(self, request: LaunchRequest) -> Invocation:
        """The command; a prompt is typed into it once it runs."""
        return Invocation(_argv(request), dict(request.env), delivered="paste" if request.prompt else "none")

    def resume(self, request: LaunchRequest) -> Invocation:
        """The command again: there is nothing to take up."""
        return self.start(request)

    def turn(self, request: LaunchRequest) -> Invocation:
        """The command with the prompt on stdin."""
        if request.read_only:
            raise _shared.not_read_only(
                self.name, "a plain command does what it does", "an `[agents.NAME]` with `read_only`"
            )
        if not request.prompt:
            return Invocation(_argv(request), dict(request.env))
        return Invocation(_argv(request), dict(request.env), stdin=request.prompt, delivered="stdin")

    def resume_turn(self, request: LaunchRequest) -> Invocation:
        """The command again."""
        return self.turn(request)

    def reply(self, exit: int, out: str, err: str) -> Reply:
        """What it printed."""
        return _replies.plain(self.name, exit, out, err)

    def probes(self, session_id: str | None) -> tuple[Probe, ...]:
        """Nothing to read."""
        return ()

    def activity(self, facts: Facts) -> Activity:
        """Never known."""
        return UNKNOWN

    def conversation(self, facts: Facts) -> str | None:
        """There is none."""
        return None

    def works_on(self, facts: Facts) -> str | None:
        """There is none."""
        return None

    def exists(self, facts: Facts) -> bool | None:
        """There is none."""
        return False

    def ready(self, facts: Facts) -> bool | None:
        """A live process is all that can be known."""
        return None

    def paste_text(self, text: str) -> str:
        """As written, but for control characters."""
        return _shared.pasteable(text, defused=())

    def clean_stop(self) -> Stop:
        """By signal."""
        return Stop((), "TERM")

    def parse_version(self, output: str) -> str | None:
        """A plain command has none."""
        return None

    def archive_name(self, path: str, session_id: str) -> str | None:
        """There is no conversation."""
        return None

    def restore_path(self, name: str, session_id: str, workdir: str) -> str | None:
        """There is no conversation."""
        return None

    def claim(self, workdir: str) -> None:
        """There is no conversation."""

    def export_args(self, session_id: str) -> tuple[str, ...] | None:
        """There is no conversation."""
        return None

    def import_args(self, file: str) -> tuple[str, ...] | None:
        """There is no conversation."""
        return None

    def transfer_env(self, session_dir: str) -> dict[str, str]:
        """There is no conversation."""
        return {}

    def store_version(self, head: str) -> str | None:
        """There is no store to know."""
        return None


def _argv(request: LaunchRequest) -> tuple[str, ...]:
    _shared.mode_args(Shell.name, {}, request.permission_mode)
    if not request.args:
        return (request.command,)
    # A command that the specs name takes the arguments; our own default gives way to them.
    return request.args if request.command == Shell.command else (request.command, *request.args)


AGENT = Shell()
