"""`[notifiers]`: who is told of what happens while nobody looks, as a frozen model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from reconciler.core.host_spec import Model
from reconciler.core.values import Text
from reconciler.core.window_spec import expression

NoticeKind = Literal["waiting", "crash-looping", "diverged", "blocked", "source", "unreachable", "healed"]
FORGES = ("github", "gitlab", "gitea")


class Notifier(Model):
    """Somebody who is told by `reconciler run`: people, of what changed (`kind = "message"`), or a forge, of what
    became of each commit.
    """

    kind: Literal["message", "github", "gitlab", "gitea"] = Field(
        "message", description="A message by apprise, or the status of a commit on a forge."
    )
    url: SecretStr | None = Field(
        None,
        description="Of a message: where it goes, as an apprise URL. Of a forge: its API, where it is not the public "
        "one. Secret-capable.",
    )
    events: tuple[NoticeKind, ...] | None = Field(None, description="Of a message: which changes. Default: all.")
    select: Annotated[Text, AfterValidator(expression)] | None = Field(
        None, description="Of a message: only sessions that fit this label expression, as in `--select`."
    )
    repository: Text | None = Field(None, description="Of a forge: `OWNER/NAME`, as in its URLs.")
    token: SecretStr | None = Field(
        None, description="Of a forge: a token that may set commit statuses. Secret-capable."
    )
