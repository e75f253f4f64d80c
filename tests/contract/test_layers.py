"""Imports go one way; built-in plug-ins see only what a stranger's could."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import reidassoc
import reidassoc_plugins

LAYERS = [  # each may import itself and what stands before it
    line.split()
    for line in """
        _version errors
        types
        ops
        interfaces files weights
        registry
        recipe
        pipeline
        data evaluation scaffold
        runs
        tables
        engine
        testing
        labs bench report
        cli
        __main__
    """.strip().splitlines()
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
PUBLIC = {"ops", "types", "interfaces", "errors", "registry", "weights", "files", "data.images"}
CORE = Path(reidassoc.__file__).parent
PLUGINS = Path(next(iter(reidassoc_plugins.__path__)))


def imported(path: Path) -> set[str]:
    """Modules of reidassoc that a file imports, wherever in it, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "reidassoc":
                found |= {
                    f"reidassoc.{a.name}" if (CORE / f"{a.name}.py").exists() else "reidassoc" for a in node.names
                }
            else:
                found.add(node.module)
    return {name.removeprefix("reidassoc.") for name in found if name.split(".")[0] == "reidassoc"} - {"reidassoc"}


@pytest.mark.parametrize("path", sorted(CORE.rglob("*.py")), ids=lambda path: str(path.relative_to(CORE)))
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(CORE).parts[0].removesuffix(".py")
    if own == "__init__":
        return  # lazy: it names what the layers define
    for module in imported(path):
        layer = module.split(".")[0]
        assert layer in RANK, f"{module} is in no layer; add it to LAYERS"
        assert RANK[layer] <= RANK[own], f"{path.relative_to(CORE)} ({own}) imports {module}, which stands above it"


def test_no_room_imports_the_package_root() -> None:
    """What ``reidassoc`` names comes from the rooms; the scaffolds are plug-ins, which import it as users do."""
    for path in CORE.rglob("*.py"):
        if path.parent.name == "scaffold" and path.name != "__init__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names if not alias.asname] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert "reidassoc" not in names, path


def test_tables_and_runs_import_no_engine() -> None:
    for room in ("tables", "runs"):
        for path in (CORE / room).glob("*.py"):
            assert not any(module.startswith("engine") for module in imported(path)), path


@pytest.mark.parametrize("path", sorted(PLUGINS.rglob("*.py")), ids=lambda path: str(path.relative_to(PLUGINS)))
def test_plugins_import_only_what_is_public(path: Path) -> None:
    for module in imported(path):
        known = any(module == name or module.startswith(f"{name}.") for name in PUBLIC)
        assert known, f"{path.name} imports reidassoc.{module}; public are {sorted(PUBLIC)}"


def test_nobody_imports_the_plugins_folder_by_its_path() -> None:
    """``import plugins.x`` from the root would make a second copy of every class."""
    root = CORE.parent
    for path in [
        p for folder in ("reidassoc", "plugins", "tests", "benchmarks") for p in (root / folder).rglob("*.py")
    ]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "plugins" for name in names), path


def test_no_catch_all_modules() -> None:
    names = {path.stem for folder in (CORE, PLUGINS) for path in folder.rglob("*.py")}
    assert not names & {"utils", "common", "helpers", "misc"}


def test_help_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys; from reidassoc.cli import cli; cli(['run', '--help'], standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--associator" in done.stdout
