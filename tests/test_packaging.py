"""The wheel holds everything: a sub-package missing from setup.cfg works in an editable install and is absent from the wheel."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
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


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked where nothing of the source tree is; the big packages come from this environment."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    tracked = ["reidassoc", "plugins", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    source.mkdir()
    subprocess.run(["cp", "-r", *(str(ROOT / name) for name in tracked), str(source)], check=True)
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
    from conftest import SMALL

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
