"""Untrusted files are data: nothing in them is executed, leaves their folder, or unpacks without end."""

from __future__ import annotations

import ast
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from reidassoc import registry
from reidassoc.bench.plan import read_plan
from reidassoc.cli import cli
from reidassoc.engine import checkpoint
from reidassoc.errors import CheckpointError, DataError, RecipeError
from reidassoc.files.features import read_features
from reidassoc.files.npz import bomb
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.yaml_reader import LIMIT, read_yaml
from reidassoc.registry.spec import Spec
from reidassoc.tables.read import read_results
from reidassoc.weights import read_state

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [
    path for folder in ("reidassoc", "plugins", "benchmarks", "scripts") for path in (ROOT / folder).rglob("*.py")
]
NEVER = {"eval", "exec", "compile", "__import__", "input"}  # as bare names; a module's own compile() is another matter
UNPICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
HARMLESS = {"UnpicklingError"}
MUST_SAY = {  # what is called: the argument that makes it safe
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}


def dangers(path: Path) -> list[str]:
    """Calls in a file that could execute what it reads."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in UNPICKLERS and node.attr not in HARMLESS:
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in UNPICKLERS:
            found.append(f"line {node.lineno}: from {node.module}")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        said = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
        if called in NEVER or called in {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "os.popen"}:
            found.append(f"line {node.lineno}: {called}")
        if said.get("shell") is True:
            found.append(f"line {node.lineno}: {called} with a shell")
        if called in MUST_SAY and said.get(MUST_SAY[called][0]) is not MUST_SAY[called][1]:
            found.append(f"line {node.lineno}: {called} without {MUST_SAY[called][0]}={MUST_SAY[called][1]}")
    return found


def test_no_source_unpickles_evaluates_or_calls_a_shell() -> None:
    assert len(SOURCES) > 200
    assert {str(path.relative_to(ROOT)): bad for path in SOURCES if (bad := dangers(path))} == {}


@pytest.mark.parametrize(
    "line",
    ["pickle.loads(x)", "from joblib import load", "torch.load(x)", "np.load(x, allow_pickle=True)", "yaml.load(x)", "eval(x)",
     "subprocess.run(x, shell=True)"],
)  # fmt: skip
def test_the_search_finds_each_danger(tmp_path: Path, line: str) -> None:
    (tmp_path / "a.py").write_text(line)
    assert len(dangers(tmp_path / "a.py")) == 1


def zeros(name: str, header: bytes, mebibytes: int) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file, file.open(name, "w") as entry:
        entry.write(header)
        for _ in range(mebibytes):
            entry.write(bytes(2**20))
    return held.getvalue()


def test_archives_that_unpack_without_end_are_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (300 * 2**10, 256)})
    packed = zeros("visible.npy", header.getvalue(), 300)
    assert len(packed) < 2**21
    for name in ("bomb.npz", "bomb.pt"):
        (tmp_path / name).write_bytes(packed)
    said = r"unpacks from 1\.\d to 300 MiB, as a decompression bomb does"
    with pytest.raises(DataError, match=said):
        read_features(tmp_path / "bomb.npz")
    with pytest.raises(DataError, match=said):
        registry.build("associators", Spec("from_file", {"path": str(tmp_path / "bomb.npz")})).read(
            tmp_path / "bomb.npz"
        )
    with pytest.raises(CheckpointError, match=said):
        read_state(tmp_path / "bomb.pt")
    with pytest.raises(CheckpointError, match=said):
        checkpoint.read(tmp_path / "bomb.pt", torch.device("cpu"))
    np.savez_compressed(tmp_path / "honest.npz", labels=np.zeros(2**20, np.int64))
    assert bomb(tmp_path / "honest.npz") == ""


def test_an_array_that_claims_more_than_any_memory_is_refused(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**30, 2**20)})
    (tmp_path / "huge.npz").write_bytes(zeros("visible.npy", header.getvalue(), 0))
    with pytest.raises(DataError, match=r"huge\.npz (contains an array that is too large|can't be read as \.npz)"):
        read_features(tmp_path / "huge.npz")


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, f"more than {LIMIT} values"),
        ("a: &a [*a]", "an alias holds itself"),
        ("[" * 700, "nested too deeply|is no YAML"),
        ("!!python/object/apply:os.system [true]", "could not determine a constructor"),
    ],
)
def test_yaml_is_plain_and_of_finite_size(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(RecipeError, match=said):
        load_recipe(str(tmp_path / "x.yaml"))
    with pytest.raises(RecipeError, match=said):
        read_plan(tmp_path / "x.yaml")


def test_honest_aliases_are_read() -> None:
    assert read_yaml("a: &a [1, 2]\nb: *a\nc: [*a, *a]", "x") == {"a": [1, 2], "b": [1, 2], "c": [[1, 2], [1, 2]]}


def test_a_benchmark_s_plan_leads_nowhere_else(tmp_path: Path) -> None:
    plan = {"cells": [{"id": "../../secret", "method": "m", "dataset": "d", "seed": 0}]}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(DataError, match=r"'../../secret' is no cell"):
        read_results([tmp_path])


@pytest.mark.parametrize("command", [["run"], ["bench"], ["check"]])
def test_help_says_that_a_plugin_is_code(command: list[str]) -> None:
    text = " ".join(CliRunner().invoke(cli, [*command, "--help"]).output.split())
    assert "code is run" in text
