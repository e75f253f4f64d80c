"""Every example in a docstring runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import reidassoc
import reidassoc_plugins

FOLDERS = {
    "reidassoc": Path(reidassoc.__file__).parent,
    "reidassoc_plugins": Path(next(iter(reidassoc_plugins.__path__))),
}
MODULES = sorted(
    ".".join((name, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__")
    for name, folder in FOLDERS.items()
    for path in folder.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0
