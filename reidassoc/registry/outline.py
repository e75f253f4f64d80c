"""The outlines of plug-ins: their classes with fields, attributes and docstrings, but without methods.

A plug-in's module imports torch, which takes seconds. Names, options and ranges are known without it: the parts of the
module that describe them are read from its text and run, and nothing else of it.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from reidassoc import interfaces

OURS = "reidassoc_plugins."
INTERFACES = (interfaces.Plugin, *interfaces.Plugin.__subclasses__())
DECLARED = {"licence"}.union(*(each.__annotations__ for each in INTERFACES))


@cache
def outline(module: str, name: str) -> Any:
    """The outline of a class in a module of plug-ins; of another name there, its value.

    Raises:
        ImportError: what the outline needs can't be imported, or is not in the module.
    """
    return Outlines.of(module).value(name)


class Outlines:
    """The top level of a module's text: each name is resolved when it is asked for, and only as far as it is needed."""

    def __init__(self, module: str) -> None:
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"No module named '{module}'")
        self.scope: dict[str, Any] = {"__name__": module}
        self.bound: dict[str, ast.stmt] = {}
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            self.bound.update(dict.fromkeys(bound_by(node), node))

    @staticmethod
    @cache
    def of(module: str) -> Outlines:
        return Outlines(module)

    def value(self, name: str) -> Any:
        """What a name stands for at the module's top level."""
        if name in self.scope:
            return self.scope[name]
        node = self.bound.get(name)
        if node is None:
            return getattr(builtins, name)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.scope[name] = imported(node, name)
        else:
            self.run(described(node) if isinstance(node, ast.ClassDef) else node)
        return self.scope[name]

    def run(self, node: ast.stmt) -> None:
        """Run one statement, once all names in it are known; annotations, too, are values then."""
        own = {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
        for each in ast.walk(node):
            if isinstance(each, ast.Name) and each.id not in own:
                self.value(each.id)
        exec(compile(ast.Module([node], []), str(self.scope["__name__"]), "exec", dont_inherit=True), self.scope)


def bound_by(node: ast.stmt) -> list[str]:
    """The names that a statement of a module's top level binds."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def imported(node: ast.Import | ast.ImportFrom, name: str) -> Any:
    """What an import binds a name to; from our other plug-in modules, by their outlines."""
    if isinstance(node, ast.Import):
        alias = next(each for each in node.names if name in (each.asname, each.name.partition(".")[0]))
        module = importlib.import_module(alias.name)
        return module if alias.asname else sys.modules[name]
    alias = next(each for each in node.names if name in (each.asname, each.name))
    if str(node.module).startswith(OURS):
        return outline(str(node.module), alias.name)
    return getattr(importlib.import_module(str(node.module)), alias.name)


def described(node: ast.ClassDef) -> ast.ClassDef:
    """A class with its docstring, its fields, and of its attributes those that all plug-ins may declare; each method is None."""
    body: list[ast.stmt] = []
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and (each.name == "__call__" or not each.name.startswith("__")):
            body += ast.parse(f"{each.name} = None").body
        elif isinstance(each, (ast.Assign, ast.AnnAssign)):
            is_field = isinstance(each, ast.AnnAssign) and not ast.unparse(each.annotation).startswith("ClassVar")
            body += [each] * (is_field or not DECLARED.isdisjoint(bound_by(each)))
        elif isinstance(each, ast.Expr):
            body.append(each)
    return ast.fix_missing_locations(ast.ClassDef(node.name, node.bases, node.keywords, body, node.decorator_list))
