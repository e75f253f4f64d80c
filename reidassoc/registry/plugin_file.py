"""The plug-ins of a single file, as in ``--plugin my_idea.py``: read by running it, and registered by nobody yet."""

from __future__ import annotations

import importlib.util
import inspect
import linecache
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from reidassoc.errors import PluginError, nearest_file
from reidassoc.interfaces.plugins import KINDS
from reidassoc.registry.entry import Entry, hash_of, name_of, refuse_name
from reidassoc.registry.entry_points import holds, owner_of
from reidassoc.registry.import_hints import import_hint


def read_file(text: str) -> list[Entry]:
    """The plug-ins of ``path/to/file.py``, or one of them: ``file.py:Class``. This runs its code.

    Raises:
        PluginError: it can't be loaded, or holds no plug-in, or one whose name an installed plug-in or another of its
            classes bears.
    """
    path_text, _, wanted = text.partition(".py:")
    path = Path(path_text + ".py" if wanted else text).expanduser()
    if not path.is_file():
        raise PluginError(
            f"no plug-in file {path}{nearest_file(path, '.py')}; expected a Python file, as in --plugin my_idea.py"
        )
    module_name = f"reidassoc_file_{path.stem}_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file: its name must end in .py")
    module, text_hash = importlib.util.module_from_spec(spec), hash_of(path)
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{path} could not be loaded: {what_failed(error, spec.origin or '')}") from error
    found: dict[tuple[str, str], Entry] = {}
    for cls in dict.fromkeys(value for value in vars(module).values() if inspect.isclass(value)):
        if cls.__module__ == module_name and getattr(cls, "kind", None) in KINDS:
            if wanted and cls.__name__ != wanted:
                continue
            entry = Entry(str(cls.kind), name_of(cls), str(path), cls, file=str(path), text_hash=text_hash)  # type: ignore[attr-defined]
            refuse_entry(entry, cls, found)
            found[entry.kind, entry.name] = entry
    if not found:
        what = f"no plug-in class {wanted}" if wanted else "no plug-in class"
        raise PluginError(f"{path} holds {what}; a plug-in subclasses Clusterer, Associator, Refiner, …")
    return list(found.values())


def what_failed(error: BaseException, file: str) -> str:
    """An error that a file's code raised while it was loaded, the line at which, and what to import instead, if it is that."""
    text, number = str(error), 0
    if isinstance(error, SyntaxError) and error.filename == file:
        text, number = error.msg, error.lineno or 0
    elif lines := [frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]:
        number = lines[-1]
    if isinstance(error, ImportError) and error.path:
        text = text.replace(f" ({error.path})", "")  # where our module lies is no news
    linecache.checkcache(file)  # edited since, and loaded again
    place = f" ({Path(file).name}, line {number}: {linecache.getline(file, number).strip()})" if number else ""
    return f"{type(error).__name__}: {text}{place}{import_hint(error)}"


def refuse_entry(entry: Entry, cls: type, beside: Mapping[tuple[str, str], Entry]) -> None:
    """Raise PluginError if a file's plug-in can't bear its name: no spec could name it, or another one bears it."""
    refuse_name(entry.name, cls)
    if owner := owner_of(entry.kind, entry.name):
        raise PluginError(
            f"{entry.origin}, class {cls.__name__}: {holds(entry.kind, owner)}; rename the class, or give it another "
            "attribute name (if that package is yours: leave out --plugin, it is found by its name)"
        )
    if (entry.kind, entry.name) in beside:
        raise PluginError(
            f"{entry.origin} holds two classes of the name {entry.kind.removesuffix('s')} '{entry.name}', the second of them "
            f"{cls.__name__}; give one another attribute name"
        )
