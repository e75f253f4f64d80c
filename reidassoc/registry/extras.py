"""Packages that only some plug-ins and options need, and that one asks for as ``pip install 'reidassoc[EXTRA]'``."""

from __future__ import annotations

import importlib
from typing import Any

from reidassoc.errors import PluginError


def needed(module: str, extra: str, *, by: str) -> Any:
    """Import a module of an extra.

    Raises:
        PluginError: it is not installed, or does not load; named are who needs it (``by``), the reason and the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise PluginError(
            f"{by} needs a package that can't be imported ({error}); next: pip install 'reidassoc[{extra}]'"
        ) from None
