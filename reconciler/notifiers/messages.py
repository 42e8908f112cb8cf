"""Messages by apprise: https://appriseit.com, some hundred services by one kind of URL."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

from reconciler.core.notices import Notice, message, wanted
from reconciler.core.spec import Desired, Notifier
from reconciler.core.verdicts import Verdict
from reconciler.notifiers import NotifyError
from reconciler.redaction import redact
from reconciler.secret_values import resolve


class Messages:
    """One place for messages."""

    def __init__(self, name: str, desired: Desired, spec: Notifier) -> None:
        self._name = name
        self._desired = desired
        self._spec = spec

    def notices(self, fleet: str, notices: Sequence[Notice]) -> None:
        """One message for all that it is for."""
        chosen = wanted(self._desired, self._spec, notices)
        if not chosen:
            return
        title, body = map(redact, message(fleet, chosen))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # apprise imports what Python deprecates
            self._send(title, body, healed=all(notice.kind == "healed" for notice in chosen))

    def _send(self, title: str, body: str, *, healed: bool) -> None:
        try:
            import apprise
        except ImportError:
            raise NotifyError(
                f"notifier {self._name}: messages need the package apprise",
                code="missing-extra",
                remedy="pip install 'agent-reconciler[notify]'",
            ) from None
        # It logs URLs, which hold the secrets.
        logging.getLogger("apprise").disabled = True
        service = apprise.Apprise(asset=apprise.AppriseAsset(app_id="reconciler", app_desc="reconciler"))
        assert self._spec.url is not None
        if not service.add(resolve(self._spec.url.get_secret_value())):
            raise NotifyError(
                f"notifier {self._name}: its url is none that apprise knows",
                code="bad-url",
                remedy="https://appriseit.com lists them",
            )
        kind = apprise.NotifyType.SUCCESS if healed else apprise.NotifyType.WARNING
        if not service.notify(body=body, title=title, notify_type=kind, body_format=apprise.NotifyFormat.TEXT):
            raise NotifyError(f"notifier {self._name}: the message was not taken", code="not-taken", retry=True)

    def verdict(self, fleet: str, verdict: Verdict) -> None:
        """Not for people."""
