"""Plug-ins by name: entry points, single files, and ``add``.

>>> from reidassoc import registry
>>> registry.build("clusterers", "dbscan(eps=0.5)").eps
0.5
"""

from reidassoc.registry.lookup import (
    add,
    build,
    check,
    entries,
    find,
    get,
    hint,
    kinds_of,
    load_file,
    named,
    names,
    spec_of,
)

__all__ = [
    "add",
    "build",
    "check",
    "entries",
    "find",
    "get",
    "hint",
    "kinds_of",
    "load_file",
    "named",
    "names",
    "spec_of",
]
