"""No search of all installed packages for plugins of pydantic: this program has none, and the search costs a tenth of
what `validate` takes, most of it for the modules that read e-mail headers, which is what package metadata is.

PYDANTIC_DISABLE_PLUGINS would spare the search, not the modules, and what we start would find it in its environment.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_LOADER = "pydantic.plugin._loader"


class _Empty(ModuleType):
    """Stands where pydantic's loader of plugins would; whoever asks for anything else gets it from that one."""

    @staticmethod
    def get_plugins() -> tuple[()]:
        """None."""
        return ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        sys.modules.pop(_LOADER, None)
        return getattr(import_module(_LOADER), name)


def leave_out() -> None:
    """From now on, unless they are there already. A pydantic without this module is as it is."""
    sys.modules.setdefault(_LOADER, _Empty(_LOADER))
