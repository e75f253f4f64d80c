"""The wheel holds everything: a sub-package missing from setup.cfg works in an editable install and is absent from the wheel."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"reidassoc": ROOT / "reidassoc", "reidassoc_plugins": ROOT / "plugins"}


@pytest.fixture(scope="module")
def configuration() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def on_disk() -> set[str]:
    found = set()
    for name, folder in FOLDERS.items():
        for init in folder.rglob("__init__.py"):
            found.add(".".join((name, *init.parent.relative_to(folder).parts)))
    return found


def test_every_package_is_listed(configuration: configparser.ConfigParser) -> None:
    listed = set(configuration["options"]["packages"].split())
    assert listed == on_disk()


def test_metadata_is_in_one_place() -> None:
    assert "\n[project]" not in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_versions_agree(configuration: configparser.ConfigParser) -> None:
    import reidassoc

    version = configuration["metadata"]["version"]
    assert version == reidassoc.__version__
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_plugin_names_are_identifiers(configuration: configparser.ConfigParser) -> None:
    for group, lines in configuration["options.entry_points"].items():
        if group.startswith("reidassoc."):
            for line in lines.strip().splitlines():
                assert line.split("=")[0].strip().isidentifier(), line


def test_commit_hooks_run_in_a_shell_that_activated_nothing() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    assert [hook["entry"].split()[0] for hook in hooks] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]


def copy_of_the_source(folder: Path) -> None:
    """What a package is built from, links as links."""
    folder.mkdir()
    tracked = ["reidassoc", "plugins", "packages", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in tracked), str(folder)], check=True)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked where nothing of the source tree is; the big packages come from this environment."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    copy_of_the_source(source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(place),
        str(source),
    ]
    subprocess.run(build, check=True, capture_output=True, cwd=place)
    (wheel,) = place.glob("*.whl")
    site = place / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        cwd=place,
    )
    return site


def from_wheel(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=site.parent, env=environment
    )


def test_the_wheel_runs(installed: Path) -> None:
    where = from_wheel(
        installed, "-c", "import reidassoc, reidassoc_plugins; print(reidassoc.__file__, reidassoc_plugins.__file__)"
    )
    assert where.returncode == 0, where.stderr
    assert where.stdout.count(str(installed)) == 2
    listed = from_wheel(installed, "-m", "reidassoc", "list")
    assert listed.returncode == 0, listed.stderr
    assert "can't be loaded" not in listed.stdout
    assert "mult/synthetic" in listed.stdout


def test_the_wheel_trains(installed: Path) -> None:
    from support.small import SMALL

    settings = [word for path, value in SMALL for word in ("--set", f"{path}={value}")]
    trained = from_wheel(
        installed,
        "-m",
        "reidassoc",
        "run",
        "--dataset",
        "synthetic(size='tiny')",
        "--device",
        "cpu",
        "--out",
        "run",
        *settings,
    )
    assert trained.returncode == 0, trained.stderr
    assert (installed.parent / "run" / "result.json").exists()


def test_the_wheel_is_typed_and_ships_recipes(installed: Path) -> None:
    assert (installed / "reidassoc" / "py.typed").exists()
    shipped = {p.relative_to(installed / "reidassoc_plugins" / "recipes") for p in installed.rglob("recipes/*/*.yaml")}
    kept = {p.relative_to(ROOT / "plugins" / "recipes") for p in (ROOT / "plugins" / "recipes").glob("*/*.yaml")}
    assert shipped == kept


PARENT = {
    "command line": ["-c", "import reidassoc; reidassoc.associate"],
    "plug-ins": ["-c", "import reidassoc_plugins.associators.mult"],
    "script": ["my.py"],
    "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
    "module": ["-m", "reidassoc", "--version"],
    "notebook": ["notebook.py"],
    "two devices": [
        *("-m", "reidassoc", "run", "--device", "cpu", "--devices", "2", "--no-report", "--associator", "nearest"),
        *("--dataset", "synthetic(size='tiny')", "--out", "run", "--set", "evaluate_every=0"),
        *("--set", "intra.epochs=1", "--set", "intra.iterations=1", "--set", "intra.identities=6"),
        *("--set", "cross.epochs=1", "--set", "cross.iterations=1", "--set", "cross.identities=6"),
    ],
}  # fmt: skip
NOTEBOOK = """
import nbformat
from nbclient import NotebookClient

cell = nbformat.v4.new_code_cell("import reidassoc; reidassoc.associate")
NotebookClient(nbformat.v4.new_notebook(cells=[cell]), kernel_name="python3").execute()
"""


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with an editable install, in the folder that contains the clone `reidassoc`."""
    parent = tmp_path_factory.mktemp("parent")
    copy_of_the_source(parent / "reidassoc")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(parent / "env")], check=True)
    python = parent / "env" / "bin" / "python"
    (site,) = (parent / "env" / "lib").glob("python*/site-packages")
    below = [path for path in sys.path if path.endswith("site-packages")]  # as they are: without their .pth files
    (site / "below.pth").write_text("\n".join(below))
    install = ["-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--ignore-installed"]
    subprocess.run(
        [sys.executable, *install, "--no-build-isolation", "-e", str(parent / "reidassoc")], check=True, cwd=parent
    )
    (parent / "my.py").write_text("import reidassoc as ra\nra.associate\n")
    (parent / "test_mine.py").write_text("import reidassoc as ra\n\ndef test(): ra.associate\n")
    (parent / "notebook.py").write_text(NOTEBOOK)
    return python


def in_parent(editable: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    parent = editable.parent.parent.parent
    return subprocess.run([str(editable), *arguments], capture_output=True, text=True, check=False, cwd=parent)


@pytest.mark.parametrize("way", PARENT)
def test_an_editable_install_imports_from_the_folder_above_the_clone(editable: Path, way: str) -> None:
    """Whose folder `reidassoc`, a namespace package to Python, has the name of ours."""
    done = in_parent(editable, *PARENT[way])
    assert done.returncode == 0, done.stderr + done.stdout


def test_an_editable_install_is_one_path_entry(editable: Path) -> None:
    """Mypy, editors and new modules need nothing else; with an import hook in its place, none of them would do."""
    clone = editable.parent.parent.parent / "reidassoc"
    (path,) = (editable.parent.parent / "lib").glob("python*/site-packages/__editable__*")
    assert path.read_text().split() == [str(clone / "packages")]
    (clone / "plugins" / "associators" / "brand_new.py").touch()
    assert in_parent(editable, "-c", "import reidassoc_plugins.associators.brand_new").returncode == 0


@pytest.mark.parametrize("name", ["plugins", "tests", "docs", "benchmarks"])
def test_an_editable_install_exposes_nothing_but_the_packages(editable: Path, name: str) -> None:
    assert "ModuleNotFoundError" in in_parent(editable, "-c", f"import {name}").stderr


def test_plugins_are_imported_under_one_name() -> None:
    files = [path for folder in ("reidassoc", "plugins", "tests", "docs") for path in (ROOT / folder).rglob("*.py")]
    wrong = re.compile(r"^\s*(from|import) plugins\b", re.MULTILINE)
    assert not [path for path in files if wrong.search(path.read_text(encoding="utf-8"))]


def test_a_release_check_installs_its_builder_where_it_is_missing(tmp_path: Path) -> None:
    """With a Python that has no `build`, and in which nothing can be installed."""
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "release-check", tmp_path / "scripts")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit 7\n')
    python.chmod(0o755)
    done = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert (tmp_path / "asked").read_text().splitlines() == ["-m build --version", "-m pip install -q build"]
