"""The status of a commit on GitHub, GitLab or Gitea (and Forgejo), by their REST APIs.

https://docs.github.com/en/rest/commits/statuses, https://docs.gitlab.com/api/commits/#set-the-pipeline-status-of-a-commit,
https://docs.gitea.com/api (repoCreateStatus).
"""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any

from reconciler import __version__
from reconciler.core.notices import Notice
from reconciler.core.spec import Notifier
from reconciler.core.verdicts import Verdict
from reconciler.notifiers import NotifyError
from reconciler.redaction import redact
from reconciler.secret_values import resolve

_TIMEOUT = 15.0  # seconds
_PUBLIC = {
    "github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4", "gitea": "https://gitea.com/api/v1",
}  # fmt: skip


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the token to whoever is named in it."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class Forge:
    """One repository whose commits get a status."""

    def __init__(self, name: str, spec: Notifier) -> None:
        self._name = name
        self._spec = spec

    def notices(self, fleet: str, notices: Sequence[Notice]) -> None:
        """Not for a forge."""

    def verdict(self, fleet: str, verdict: Verdict) -> None:
        """Set the status of the commit."""
        url, body = self._request(fleet, verdict)
        assert self._spec.token is not None
        token = resolve(self._spec.token.get_secret_value())
        sign = {"PRIVATE-TOKEN": token} if self._spec.kind == "gitlab" else {"Authorization": f"token {token}"}
        headers = {**sign, "Content-Type": "application/json", "User-Agent": f"reconciler/{__version__}"}
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        try:
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=_TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            error.close()
            raise self._failed(f"{self._spec.kind} answered {error.code}", error.code >= 500) from None
        except (OSError, HTTPException, ValueError) as error:
            # Its text may hold a header's value.
            raise self._failed(f"{self._spec.kind} cannot be reached: {type(error).__name__}", True) from None

    def _failed(self, why: str, retry: bool) -> NotifyError:
        return NotifyError(
            f"notifier {self._name}: {why}", code="not-taken", retry=retry,
            remedy="may its token set commit statuses of this repository?",
        )  # fmt: skip

    def _request(self, fleet: str, verdict: Verdict) -> tuple[str, dict[str, str]]:
        kind, repository, words = self._spec.kind, self._spec.repository or "", redact(verdict.description)
        base = resolve(self._spec.url.get_secret_value()) if self._spec.url is not None else _PUBLIC[kind]
        self._check(base)
        base, context = base.rstrip("/"), f"reconciler/{fleet}"
        if kind == "gitlab":
            path = f"projects/{urllib.parse.quote(repository, safe='')}/statuses/{verdict.commit}"
            state = "failed" if verdict.state == "failure" else verdict.state
            return f"{base}/{path}", {"state": state, "name": context, "description": words}
        path = f"repos/{urllib.parse.quote(repository)}/statuses/{verdict.commit}"
        return f"{base}/{path}", {"state": verdict.state, "context": context, "description": words}

    def _check(self, base: str) -> None:
        found = urllib.parse.urlsplit(base)
        if found.scheme != "https" and not (found.scheme == "http" and _loopback(found.hostname or "")):
            raise NotifyError(
                f"notifier {self._name}: its url is not https, and would show the token to everybody on the way",
                code="bad-url",
            )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
