"""Every error of the program: whose fault it is, and whether it is worth trying again.

    ReconcilerError
    ├── UsageError        the command line          exit 64   no use in trying again
    ├── SpecError         the specs                 exit 65   no use in trying again
    ├── GuardError        a guard said no           exit 7    lift the guard first
    ├── StalePlanError    a saved plan      exit 5    make a new one
    ├── LeaseHeldError    another controller works  exit 6    later
    ├── SourceError       where the specs come from exit 1, 7 or 64
    ├── HostError         the way to a host, or what a host answered
    └── OperationError    one operation on a reachable host

`code` is a stable word for scripts, `message` one sentence, `remedy` what to do about it.
Errors of libraries are translated to these at one door: the transport, the loader, the journal.
"""

from __future__ import annotations


class ReconcilerError(Exception):
    """Base of all errors that a user can act on; anything else that escapes is a bug (exit 70)."""

    exit_code = 1

    def __init__(self, message: str, *, code: str = "error", remedy: str = "", retry: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.remedy = remedy
        self.retry = retry


class UsageError(ReconcilerError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 64


class SpecError(ReconcilerError):
    """The specs are not valid. `diagnostics` holds every error found, not only the first."""

    exit_code = 65

    def __init__(self, message: str, diagnostics: tuple[object, ...] = (), *, code: str = "invalid-spec") -> None:
        super().__init__(message, code=code)
        self.diagnostics = diagnostics
        self.revision = ""  # of a source with revisions: which one is not valid


class GuardError(ReconcilerError):
    """A guard (max_stop, empty specs, protection) refuses to go on."""

    exit_code = 7


class StalePlanError(ReconcilerError):
    """A saved plan does not hold any more: other specs, too old, or carried out before. Nothing was done."""

    exit_code = 5


class LeaseHeldError(ReconcilerError):
    """Another controller holds the lease of a host."""

    exit_code = 6


class SourceError(ReconcilerError):
    """The specs cannot be had from where they come, or what is there is not to be trusted.

    Codes: fetch-failed, ref-not-found, path-missing, git-missing (exit 1); verify-failed, mass-loss (exit 7);
    bad-url (exit 64). `revision` says which one was refused, where that is known.
    """

    def __init__(self, message: str, *, code: str, remedy: str = "", retry: bool = True, revision: str = "") -> None:
        super().__init__(message, code=code, remedy=remedy, retry=retry)
        self.revision = revision
        self.exit_code = {"verify-failed": 7, "mass-loss": 7, "bad-url": 64}.get(code, 1)


class HostError(ReconcilerError):
    """A host cannot be reached, or its answer cannot be trusted. It is *unknown* then, never absent.

    Codes: auth-denied, host-key-unknown, host-key-changed, host-key-mismatch, passphrase-needed, key-too-open,
    refused, timed-out, name-not-resolved, no-route, dropped, too-many-connections, too-many-sessions, protocol,
    too-many-files, bad-option, look-failed, look-truncated, disabled, foreign-machine.
    """

    def __init__(self, message: str, *, code: str, remedy: str = "", retry: bool = True) -> None:
        super().__init__(message, code=code, remedy=remedy, retry=retry)


class OperationError(ReconcilerError):
    """One operation on a reachable host failed or was refused there.

    Codes: fence-stale, lease-held, stale, locked, agent-missing, workdir-missing, tmux-missing,
    disk-full, already-running, exited, not-ready, not-idle, prompt-refused, socket-path, read-only, failed.
    """
