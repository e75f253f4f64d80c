"""Where plug-ins are found: entry points, single files, and ``add``. The built-in ones come the same way as a stranger's.

>>> from reidassoc import registry
>>> registry.build("clusterers", "dbscan(eps=0.5)").eps
0.5
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from reidassoc.errors import PluginError, SpecError, nearest_name
from reidassoc.interfaces.plugins import KINDS
from reidassoc.registry.entry import Entry, kind_of, name_of, refuse_name
from reidassoc.registry.entry_points import bearers, holds, installed_names, load, out_of_step, owner_of
from reidassoc.registry.options import checked_options, construct, refuse_missing_files
from reidassoc.registry.plugin_file import read_file
from reidassoc.registry.spec import Spec

ADDED = "added"  # the origin of a class that came neither from a package nor from a file
NAMED = "only ra.associate takes such an object; name one of scikit-learn's: sklearn(estimator='Name(option=value)')"

_added: dict[tuple[str, str], Entry] = {}


def add(name: str, cls: type) -> None:
    """Register a class under a name, for this process. Its kind is that of the interface that it subclasses.

    It takes the place of what was added under that name before, as where a notebook's cell is run again.

    Raises:
        PluginError: it is no plug-in, or the name is none, or that of an installed one.
    """
    kind = getattr(cls, "kind", None)
    if kind not in KINDS:
        raise PluginError(f"{cls.__name__} is no plug-in: subclass one of Clusterer, Associator, Refiner, …")
    refuse_name(name, cls)
    if (owner := owner_of(kind, name)) and load(kind, owner).cls is not cls:
        raise PluginError(f"{holds(kind, owner)}; add {cls.__name__} under another name")
    _added[kind, name] = Entry(kind, name, ADDED, cls)


def load_file(text: str) -> list[Entry]:
    """Register the plug-ins of a file: ``path/to/file.py``, or one of them: ``file.py:Class``. This runs its code.

    A class is registered under its ``name`` attribute, or its own name in snake_case. The same file, loaded again, takes
    its own place.

    Raises:
        PluginError: it can't be loaded, holds no plug-in, or one whose name is taken, by an installed plug-in or by one of
            another file.
    """
    found = read_file(text)
    for entry in found:
        before = _added.get((entry.kind, entry.name))
        if before and before.origin != ADDED and module_of(before) != module_of(entry):
            raise PluginError(
                f"both {before.origin} and {entry.origin} hold {entry.kind.removesuffix('s')} '{entry.name}'; give one of "
                "the files alone, or one of the classes another attribute name"
            )
    _added.update({(entry.kind, entry.name): entry for entry in found})
    return found


def module_of(entry: Entry) -> str:
    """The module of an entry's class: one for each file, however it was named."""
    return entry.cls.__module__ if entry.cls else ""


def names(kind: str) -> list[str]:
    """The names registered for a kind, sorted; nothing is imported."""
    return sorted(installed_names(kind) | {name for added, name in _added if added == kind})


def entries(kind: str, *, outlined: bool = False) -> Iterator[Entry]:
    """Every plug-in of a kind; one that fails to load, or doesn't get its name, is yielded with its problem."""
    for name in names(kind):
        yield find(kind, name, outlined=outlined)
        yield from (load(kind, point, outlined=outlined) for point in bearers(kind, name)[1:])


def find(kind: str, name: str, *, outlined: bool = False) -> Entry:
    """Look a name up; added ones come before entry points.

    Args:
        outlined: whether the outline of one of ours is enough: its options and docstring, without methods and without torch.

    Raises:
        PluginError: nothing bears the name; the nearest one is suggested.
    """
    if (kind, name) in _added:
        return _added[kind, name]
    point = owner_of(kind, name)
    if point is None:
        known = names(kind)
        raise PluginError(f"no {kind.removesuffix('s')} '{name}'{hint(name, known)}; known: {', '.join(known)}")
    return load(kind, point, outlined=outlined)


def kinds_of(name: str) -> list[str]:
    """The kinds of which a plug-in bears the name.

    Raises:
        PluginError: none does; the nearest name is suggested.
    """
    found = [kind for kind in KINDS if name in names(kind)]
    if not found:
        known = sorted({known for kind in KINDS for known in names(kind)})
        raise PluginError(f"no plug-in '{name}'{hint(name, known)}; see reidassoc list")
    return found


def hint(name: str, known: list[str]) -> str:
    """What may be meant by a name that nothing bears."""
    if any(point.name == name for point in out_of_step()):
        return "; setup.cfg has it, but it is not installed: run pip install -e . again, in the checkout"
    if others := [kind for kind in KINDS if name in names(kind)]:
        return f"; '{name}' is among the {' and the '.join(others)}"
    file = "; if it is in a file of yours: --plugin FILE (in Python, first: ra.registry.load_file(FILE))"
    return nearest_name(name, known) + file


def named(target: str) -> list[tuple[Entry, Spec]]:
    """What a person means by ``my_idea.py`` (all of a file's plug-ins), ``mult(alpha=0.3)`` or ``associator:mult``.

    Raises:
        PluginError: there is none, or it can't be loaded.
    """
    if re.search(r"\.py(:\w+)?$", target):
        return [(entry, Spec(entry.name)) for entry in load_file(target)]
    if "/" in target and Path(target).expanduser().is_dir():
        raise PluginError(
            f"{target} is a folder: expected a .py file, or the name of a plug-in that is installed; a package of one's own is "
            f"installed by pip install -e {shlex.quote(target)}"
        )
    before, colon, after = target.partition(":")
    spec = Spec.parse(after if colon and "(" not in before else target)
    wanted = [kind_of(before)] if colon and "(" not in before else kinds_of(spec.name)
    for kind in wanted:
        get(kind, spec.name, outlined=True)
    return [(find(kind, spec.name), spec) for kind in wanted]


def get(kind: str, name: str, *, outlined: bool = False) -> type:
    """Return the class behind a name, or its outline; PluginError if there is none, or if it can't be loaded."""
    entry = find(kind_of(kind), name, outlined=outlined)
    if entry.cls is None:
        raise PluginError(f"{kind.removesuffix('s')} '{name}' ({entry.origin}) can't be loaded: {entry.problem}")
    return entry.cls


def build(kind: str, spec: Spec | str) -> Any:
    """Make the plug-in that a spec describes, every option checked against its field."""
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    return construct(get(kind, spec.name), spec.options, spec.name)


def check(kind: str, spec: Spec | str, *, whole: bool = True) -> None:
    """Check name, options and ranges of a spec, and that its files are there; torch is not imported for plug-ins of ours.

    Args:
        whole: whether the spec must have every option that is required; what it has is checked all the same.

    Raises:
        ReidassocError: something is wrong with it.
    """
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    cls = get(kind, spec.name, outlined=True)
    if whole:
        refuse_missing_files(construct(cls, spec.options, spec.name), spec.name)
    else:
        checked_options(cls, spec.options, spec.name)


def spec_of(plugin: object) -> Spec:
    """The text form of a plug-in object; a class of your own is registered by it, under its name in snake_case.

    >>> from reidassoc_plugins.associators.mult import Mult
    >>> str(spec_of(Mult(alpha=0.3)))
    'mult(alpha=0.3)'

    Raises:
        PluginError: it is no plug-in, its name is another one's, or an option can't be written as text.
    """
    if isinstance(plugin, type):
        raise PluginError(f"{plugin.__name__} is a class: give an object of it, as in {plugin.__name__}()")
    cls = type(plugin)
    kind = getattr(cls, "kind", None)
    if kind not in KINDS or not is_dataclass(plugin):
        expected = "expected a dataclass that subclasses Clusterer, Associator, …"
        raise PluginError(f"{cls.__name__} is no plug-in: {NAMED if hasattr(plugin, 'fit_predict') else expected}")
    known = next((entry.name for entry in entries(kind) if entry.cls is cls), None)
    name = known or name_of(cls)
    if known is None:
        if owner := owner_of(kind, name):
            raise PluginError(f"{holds(kind, owner)}; rename {cls.__name__}")
        add(name, cls)
    values = {f.name: getattr(plugin, f.name) for f in fields(plugin) if f.init}
    spec = Spec(name, {f.name: values[f.name] for f in fields(plugin) if f.init and values[f.name] != f.default})
    try:
        same = Spec.parse(str(spec)).options == spec.options
    except SpecError:
        same = False
    if not same:
        estimator = any(hasattr(value, "fit_predict") for value in values.values())
        way_out = NAMED if estimator else "use numbers, words, true, false and tuples"
        raise PluginError(f"{name}: its options can't be written as text: {spec}; {way_out}")
    return spec
