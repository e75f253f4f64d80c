"""Where plug-ins are found: entry points, single files, and ``add``. The built-in ones come the same way as a stranger's.

>>> from reidassoc import registry
>>> registry.build("clusterers", "dbscan(eps=0.5)").eps
0.5
"""

from __future__ import annotations

import importlib.util
import inspect
import keyword
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from hashlib import sha256
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path
from typing import Any

from reidassoc.entrypoints import installed, out_of_step
from reidassoc.errors import PluginError, SpecError, nearest_name
from reidassoc.interfaces import KINDS
from reidassoc.options import construct
from reidassoc.spec import Spec

GROUP = "reidassoc."
ADDED = "added"  # the origin of a class that came neither from a package nor from a file
NAMED = "only ra.associate takes such an object; name one of scikit-learn's: sklearn(estimator='Name(option=value)')"


@dataclass(frozen=True)
class Entry:
    """One registered name: the class, or the reason why it could not be loaded."""

    kind: str
    name: str
    origin: str
    cls: type | None
    problem: str = ""
    package_licence: str = ""
    file: str = ""  # that holds the class; empty for the plug-ins that reidassoc ships
    text_hash: str = ""  # of that file, when this process first looked the class up

    @property
    def claim(self) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(self.cls) or "").split("\n")[0] if self.cls else ""

    @property
    def paper(self) -> str:
        return str(getattr(self.cls, "paper", "")) if self.cls else ""

    @property
    def licence(self) -> str:
        """The class's own ``licence``, else that of the package that it came with; empty where neither says."""
        return str(getattr(self.cls, "licence", self.package_licence))


_added: dict[tuple[str, str], Entry] = {}


def kind_of(text: str) -> str:
    """Return the kind that ``text`` names, in singular or plural."""
    for kind in KINDS:
        if text in {kind, kind.removesuffix("s")}:
            return kind
    raise PluginError(f"no kind of plug-in '{text}'{nearest_name(text, KINDS)}; kinds: {', '.join(KINDS)}")


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
    if (owner := owner_of(kind, name)) and load_point(kind, owner).cls is not cls:
        raise PluginError(f"{holds(kind, owner)}; add {cls.__name__} under another name")
    _added[kind, name] = Entry(kind, name, ADDED, cls)


def refuse_name(name: str, cls: type) -> None:
    """Raise PluginError if no spec could name a plug-in so: ``my-idea``, or a word of Python's, such as ``global``."""
    if not name.isidentifier() or keyword.iskeyword(name):
        raise PluginError(
            f"the name of {cls.__name__} must be a Python identifier and no keyword, got '{name}'; "
            "give the class another attribute name"
        )


def owner_of(kind: str, name: str) -> EntryPoint | None:
    """The entry point of the installed plug-in that bears a name, if one does; nothing is imported."""
    points = [point for point in installed(GROUP + kind) if point.name == name]
    return min(points, key=lambda point: point.value, default=None)


def holds(kind: str, owner: EntryPoint) -> str:
    """Who has a name already, as the beginning of an error."""
    return f"{origin_of(owner)[0]} has {kind.removesuffix('s')} '{owner.name}' already"


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


def read_file(text: str) -> list[Entry]:
    """The plug-ins of a file, not registered: what :func:`load_file` does first, with its errors."""
    path_text, _, wanted = text.partition(".py:")
    path = Path(path_text + ".py" if wanted else text).expanduser()
    if not path.is_file():
        raise PluginError(f"no plug-in file {path}; expected a Python file, as in --plugin my_idea.py")
    module_name = f"reidassoc_file_{path.stem}_{abs(hash(path.resolve()))}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file: its name must end in .py")
    module, text_hash = importlib.util.module_from_spec(spec), hash_of(path)
    sys.modules[module_name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{path} could not be loaded: {type(error).__name__}: {error}") from error
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


def name_of(cls: type) -> str:
    """The ``name`` attribute of a plug-in class, or its own name in snake_case."""
    return str(getattr(cls, "name", None) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower())


def spec_of(plugin: object) -> Spec:
    """The text form of a plug-in object; a class of your own is registered by it, under its name in snake_case.

    >>> from reidassoc_plugins.associators.mult import Mult
    >>> str(spec_of(Mult(alpha=0.3)))
    'mult(alpha=0.3)'

    Raises:
        PluginError: it is no plug-in, its name is another one's, or an option can't be written as text.
    """
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


def names(kind: str) -> list[str]:
    """The names registered for a kind, sorted; nothing is imported."""
    points = {point.name for point in installed(GROUP + kind)}
    return sorted(points | {name for added, name in _added if added == kind})


def entries(kind: str) -> Iterator[Entry]:
    """Every plug-in of a kind; one that fails to load is yielded with its problem."""
    for name in names(kind):
        yield find(kind, name)


def find(kind: str, name: str) -> Entry:
    """Look a name up; added ones come before entry points.

    Raises:
        PluginError: nothing bears the name; the nearest one is suggested.
    """
    if (kind, name) in _added:
        return _added[kind, name]
    point = owner_of(kind, name)
    if point is None:
        known = names(kind)
        raise PluginError(f"no {kind.removesuffix('s')} '{name}'{hint(name, known)}; known: {', '.join(known)}")
    return load_point(kind, point)


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
    return nearest_name(name, known) + "; if it is in a file of yours: --plugin FILE"


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
            f"installed by pip install -e {target}"
        )
    before, colon, after = target.partition(":")
    spec = Spec.parse(after if colon and "(" not in before else target)
    wanted = [kind_of(before)] if colon and "(" not in before else kinds_of(spec.name)
    for kind in wanted:
        get(kind, spec.name)
    return [(find(kind, spec.name), spec) for kind in wanted]


@cache
def package_of(distribution: Distribution) -> tuple[str, str]:
    """A package's name with its version, and its licence; reading them takes far longer than finding a plug-in."""
    facts = distribution.metadata.json
    licence = str(facts.get("license_expression") or facts.get("license") or "")
    return f"{distribution.name} {distribution.version}", licence


def origin_of(point: EntryPoint) -> tuple[str, str]:
    """The package that an entry point came with, and its licence; without a package, what it points to."""
    return package_of(point.dist) if point.dist else (point.value, "")


def load_point(kind: str, point: EntryPoint) -> Entry:
    origin, licence = origin_of(point)
    try:
        cls = point.load()
    except (Exception, SystemExit) as error:  # a stranger's package may fail in any way; it breaks only itself
        return Entry(kind, point.name, origin, None, f"{type(error).__name__}: {error}", licence)
    if not inspect.isclass(cls) or getattr(cls, "kind", None) != kind:
        return Entry(kind, point.name, origin, None, f"{point.value} is no {kind.removesuffix('s')}", licence)
    file, text_hash = ("", "") if origin.startswith("reidassoc ") else source_of(cls)
    return Entry(kind, point.name, origin, cls, package_licence=licence, file=file, text_hash=text_hash)


@cache
def source_of(cls: Any) -> tuple[str, str]:
    """The file that holds a class's text, and its hash at the first call: what is edited later does not run here.

    Both are empty for compiled classes.
    """
    try:
        file = inspect.getsourcefile(cls) or ""
    except TypeError:
        file = ""
    return file, hash_of(Path(file))


def hash_of(file: Path) -> str:
    """A short hash of a file's bytes; empty if there is none."""
    return sha256(file.read_bytes()).hexdigest()[:16] if file.is_file() else ""


def get(kind: str, name: str) -> type:
    """Return the class behind a name; PluginError if there is none, or if it can't be loaded."""
    entry = find(kind_of(kind), name)
    if entry.cls is None:
        raise PluginError(f"{kind.removesuffix('s')} '{name}' ({entry.origin}) can't be loaded: {entry.problem}")
    return entry.cls


def build(kind: str, spec: Spec | str) -> Any:
    """Make the plug-in that a spec describes, every option checked against its field."""
    spec = Spec.parse(spec) if isinstance(spec, str) else spec
    return construct(get(kind, spec.name), spec.options, spec.name)
