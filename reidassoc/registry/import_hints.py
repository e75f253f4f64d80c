"""Where a name is that somebody looked for in the wrong module of ours."""

from __future__ import annotations

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from reidassoc.errors import nearest_name

FURTHER = ("types", "interfaces", "errors", "registry.spec", "registry.extras", "files.npz", "weights")  # public ones
NO_NAME = re.compile(r"cannot import name '(\w+)' from '(reidassoc[\w.]*)'")
NO_MODULE = re.compile(r"No module named '(reidassoc\.[\w.]+)'")
HERE = Path(__file__).resolve().parents[1]


def import_hint(error: BaseException) -> str:
    """What to import instead, as the end of a sentence; an empty string if the error is no import from us, or nothing is near."""
    text = str(error) if isinstance(error, ImportError) else ""
    if found := NO_NAME.search(text):
        name, module = found.groups()
        if homes := [home for home in modules() if name in names_of(home)]:
            return f"; it is in {homes[0]}"
        return nearest_name(name, names_of(module))
    if found := NO_MODULE.search(text):
        return nearest_name(found[1], modules())
    return ""


def modules() -> list[str]:
    """The modules from which a plug-in may import, the package itself first."""
    ops = [f"reidassoc.ops.{path.stem}" for path in sorted((HERE / "ops").glob("[!_]*.py"))]
    return ["reidassoc", *ops, *(f"reidassoc.{name}" for name in FURTHER)]


def names_of(module: str) -> set[str]:
    """The public names that a module of ours defines, or gathers in its ``__all__``; it is read, not imported."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return set()
    if module == "reidassoc":
        return {name for name in dir(sys.modules[module]) if not name.startswith("_")}
    found: set[str] = set()
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            found |= {node.target.id} if isinstance(node.target, ast.Name) else set()
        elif isinstance(node, ast.Assign):
            targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
            found |= set(ast.literal_eval(node.value) if targets == ["__all__"] else targets)
    return {name for name in found if not name.startswith("_")}
