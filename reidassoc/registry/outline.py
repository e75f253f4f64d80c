"""The outlines of plug-ins: their classes with fields, attributes and docstrings, but without methods.

A plug-in's module imports torch, which takes seconds. Names, options and ranges are known without it: of the module's own text,
what describes a class is loaded, as an import loads all of it.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.abc import InspectLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import reidassoc.interfaces as interfaces

OURS = "reidassoc_plugins."
INTERFACES = (interfaces.Plugin, *interfaces.Plugin.__subclasses__())
DECLARED = {"licence"}.union(*(each.__annotations__ for each in INTERFACES))


class TextLoader(InspectLoader):
    """Loads a module from a text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, fullname: str) -> str:
        return self.text


@cache
def outline(module: str, name: str) -> Any:
    """The outline of a class in a module of plug-ins; of another name there, its value.

    Raises:
        ImportError: what the outline needs can't be imported, or is not in the module.
    """
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named '{module}'")
    body = [described(node) for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body]
    needed = names_behind(name, body)
    loaded = ModuleType(module)
    reduced: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(OURS):
            of = {alias.asname or alias.name: alias.name for alias in node.names}
            vars(loaded).update({each: outline(str(node.module), of[each]) for each in needed & {*of}})
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            node.names = [alias for alias in node.names if bound_by_alias(alias) in needed]
            reduced += [node] * bool(node.names)
        elif not needed.isdisjoint(bound_by(node)):
            reduced.append(node)
    TextLoader(ast.unparse(ast.Module(reduced, []))).exec_module(loaded)
    return getattr(loaded, name)


def names_behind(name: str, body: list[ast.stmt]) -> set[str]:
    """A name of a module's top level and all names there that its value needs."""
    nodes = {each: node for node in body for each in bound_by(node)}
    needed, left = set[str](), {name}
    while left:
        needed |= left
        inside = (each for one in left & {*nodes} for each in ast.walk(nodes[one]))
        left = {each.id for each in inside if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)} - needed
    return needed


def bound_by(node: ast.stmt) -> list[str]:
    """The names that a statement of a module's top level binds."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return [bound_by_alias(alias) for alias in node.names]
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def bound_by_alias(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def described(node: ast.stmt) -> ast.stmt:
    """Of a class its docstring, its fields, and of its attributes those that all plug-ins may declare; each method is None."""
    if not isinstance(node, ast.ClassDef):
        return node
    body: list[ast.stmt] = []
    for each in node.body:
        if isinstance(each, ast.FunctionDef) and (each.name == "__call__" or not each.name.startswith("__")):
            body += ast.parse(f"{each.name} = None").body
        elif isinstance(each, (ast.Assign, ast.AnnAssign)):
            is_field = isinstance(each, ast.AnnAssign) and not ast.unparse(each.annotation).startswith("ClassVar")
            body += [each] * (is_field or not DECLARED.isdisjoint(bound_by(each)))
        elif isinstance(each, ast.Expr):
            body.append(each)
    node.body = body
    return node
