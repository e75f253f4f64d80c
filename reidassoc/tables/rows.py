"""The rows of tables: a row is a name and what its runs are made of; runs of one row differ in their seeds alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

MOST = 4  # differences that a row's name tells
FIRST = ("associator", "clusterer", "refiner", "objective", "network")  # what a reader looks for
FILE = "file "  # begins the path of a file with plug-ins
VAGUE = ("weight", "name")  # say little without what they are of

Content = Mapping[str, Any]


def content(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored result's run was made of, by path: the recipe, the files of plug-ins, and how it was evaluated."""
    method, setting = data["method"], data.get("setting", {})
    found = dict(data.get("configuration") or {**method, "epochs": data.get("epochs")})
    found |= {f"{FILE}{name}": text_hash[:8] for name, text_hash in data.get("files", {}).items()}
    found["batch-norm groups"] = setting.get("batch_norm_groups", 1)
    found["test-time steps"] = " + ".join(setting.get("test_time", [])) or None
    return found


def row_names(named: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """The row of each result of ``(name, data)``: the name, with what differs where several methods bear it."""
    contents = [content(data) for _, data in named]
    keys = [digest(each) for each in contents]
    rows: dict[tuple[str, str], str] = {}
    for name in dict.fromkeys(name for name, _ in named):
        there = {key: n for n, key in enumerate(keys) if named[n][0] == name}
        methods = sorted(there.items())  # the order of reading decides no name
        recipes = [str(named[n][1].get("recipe")) for _, n in methods]
        texts = differences([contents[n] for _, n in methods], recipes) if len(methods) > 1 else [""]
        if len(set(texts)) < len(texts):
            texts = [
                f"{text}, digest {key[:6]}".removeprefix(", ") for text, (key, _) in zip(texts, methods, strict=True)
            ]
        rows |= {
            (name, key): f"{name} ({text})" if text else name for text, (key, _) in zip(texts, methods, strict=True)
        }
    return [rows[name, key] for (name, _), key in zip(named, keys, strict=True)]


def digest(each: Content) -> str:
    return sha256(json.dumps(each, sort_keys=True).encode()).hexdigest()


def differences(contents: Sequence[Content], recipes: Sequence[str]) -> list[str]:
    """In what each of several contents differs from the others, in a few words: ``objective=acl``, ``alpha=0.05, eps=0.6``.

    Where that is more than a name can tell, the recipes' names, if they tell all apart; else the first few.
    """
    paths = sorted({path for each in contents for path in each}, key=lambda path: (rank(path), path))
    told = [path for path in paths if len({text(each[path]) for each in contents if path in each}) > 1]
    labels = grouped(told, contents)
    if len(labels) > MOST and len(set(recipes)) == len(recipes):
        return [f"recipe {name}" for name in recipes]
    found = []
    for each in contents:
        parts = [f"{label}={text(each[path])}" for label, path in first_known(labels, each)]
        more = f" and {len(parts) - MOST} more" if len(parts) > MOST else ""
        found.append(", ".join(parts[:MOST]) + more)
    return found


def rank(path: str) -> int:
    """Plug-ins first, then their options, then the rest, in the order in which a reader looks for them."""
    steps = path.split(".")
    place = next((n for n, kind in enumerate(FIRST) if kind in steps), len(FIRST))
    return 2 * place + (steps[-1] not in FIRST)


def grouped(paths: Sequence[str], contents: Sequence[Content]) -> dict[str, list[str]]:
    """Paths by a short label: by their last step, where all paths that end so say the same in each content."""
    by_leaf: dict[str, list[str]] = {}
    for path in paths:
        leaf = path if path.startswith(FILE) else path.rpartition(".")[2]
        by_leaf.setdefault(leaf, []).append(path)
    found: dict[str, list[str]] = {}
    for leaf, same in by_leaf.items():
        agree = all(len({text(each[path]) for path in same if path in each}) < 2 for each in contents)
        found |= {leaf: same} if agree and leaf not in VAGUE else {path: [path] for path in same}
    return found


def first_known(labels: Mapping[str, Sequence[str]], each: Content) -> list[tuple[str, str]]:
    """Each label with the first of its paths that a content has."""
    known = [(label, [path for path in paths if path in each]) for label, paths in labels.items()]
    return [(label, there[0]) for label, there in known if there]


def text(value: Any) -> str:
    """A setting as a recipe writes it."""
    if isinstance(value, str):
        return value
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
