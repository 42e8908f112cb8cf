"""What others wrote, as it may be shown: plain lines, or Markdown on a terminal. No order to a terminal survives."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from reconciler.core.printed import escaped

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

_MARKDOWN_LIMIT = 30_000  # characters; what is longer is shown as it is
_HARMLESS = {"\xa0": " ", "\u202f": " ", "\t": "\t", "\u200c": "\u200c", "\u200d": "\u200d"}  # in what people write


def readable(text: str) -> list[str]:
    """The lines of a text without anything that a terminal would obey."""
    lines = text.replace("\r\n", "\n").split("\n")
    return [
        line if line.isprintable() else "".join(_HARMLESS[c] if c in _HARMLESS else escaped(c) for c in line)
        for line in lines
    ]


class _Clean:
    """What another renders, without anything that a terminal would obey: Markdown can name any character (`&#27;`)."""

    def __init__(self, inner: RenderableType) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        for text, style, control in console.render(self._inner, options):
            if control is None:
                clean = "".join(c if c.isprintable() or c == "\n" else _HARMLESS.get(c, "\ufffd") for c in text)
                yield Segment(clean, style.update_link(None) if style is not None and style.link else style)


def written(text: str) -> Any:
    """A contribution as Markdown; the text as it is, where it is too long for that."""
    from rich.markdown import Markdown
    from rich.text import Text

    clean = "\n".join(readable(text.strip("\n")))
    if len(clean) > _MARKDOWN_LIMIT:
        return _Clean(Text(clean))
    shown = Markdown("", hyperlinks=False)
    shown.parsed = _parser().parse(clean)
    return _Clean(shown)


@cache
def _parser() -> MarkdownIt:
    """Markdown in which nothing that is said can be hidden, as it could in HTML and in definitions of links."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
