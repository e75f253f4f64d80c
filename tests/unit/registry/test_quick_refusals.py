"""Names, options and paths are checked without torch, whose import takes longer than a newcomer waits for a typing error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reidassoc import registry
from reidassoc.interfaces.plugins import KINDS
from reidassoc.registry.entry_points import installed, ours
from reidassoc.registry.options import options_of
from reidassoc.registry.outline import DECLARED

WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
from reidassoc.cli import main
main()
"""

ANSWERS = {
    "run --associator mlut": "no associator 'mlut'; did you mean 'mult'?",
    "run --clusterer dbscam": "no clusterer 'dbscam'; did you mean 'dbscan'?",
    "run --refiner mixx": "no refiner 'mixx'; did you mean 'mix'?",
    "run --dataset sysu": "no dataset 'sysu'; did you mean 'sysu_mm01'?",
    "run --set cross.epochs=-3": "--set cross.epochs=-3: expected at least 1, got -3",
    "run --set eps=0.5": "did you mean clusterer.eps?",
    "run --associator mult(alfa=1)": "mult: no option 'alfa'; did you mean 'alpha'?",
    "run --associator mult(alpha=7)": "mult: alpha must be float ≥ 0 and ≤ 1, got 7",
    "run --dataset sysu_mm01": "sysu_mm01: option 'root' is required",
    "run --dataset sysu_mm01 --data nowhere": "nowhere does not exist; expected for sysu_mm01(root=…): folder that contains cam1",
    "run --associator from_file(path='nowhere.npz')": "nowhere.npz does not exist; expected for from_file(path=…)",
    "run --recipe mlut/synthetic": "no recipe 'mlut/synthetic'; did you mean 'mult/synthetic'?",
    "run --resume nowhere": "nowhere is no run folder",
    "run --plugin nowhere.py": "no plug-in file nowhere.py",
    "show mlut": "no plug-in 'mlut'; did you mean 'mult'?",
    "check mlut": "no plug-in 'mlut'; did you mean 'mult'?",
    "associate nowhere.npz --out x.npz": "no feature file nowhere.npz",
    "associate nowhere.npz --out x.npz --associator mult(alpha=7)": "mult: alpha must be float ≥ 0 and ≤ 1, got 7",
    "lab nowhere.npz": "no feature file nowhere.npz",
    "lab nowhere.npz --associator mult,mlut": "no associator 'mlut'",
    "lab nowhere.npz --associator pgm,mult(alfa=1)": "mult: no option 'alfa'; did you mean 'alpha'?",
    "lab nowhere.npz --clusterer dbscan(eps=7)": "dbscan: eps must be float > 0 and ≤ 1, got 7",
    "lab nowhere.npz --refiner oclr+gpcr(kk=1)": "gpcr: no option 'kk'",
    "lab nowhere.npz --associator mult --sweep associator.alpha=0.1,7": "mult: alpha must be float ≥ 0 and ≤ 1, got 7",
    "advise nowhere.npz": "no feature file nowhere.npz",
    "evaluate nowhere": "nowhere is no run folder",
    "run --network two_stream --weights nowhere.pt": "no weights file nowhere.pt",
    "import-checkpoint nowhere.pt --format mult --data .": "no weights file nowhere.pt",
    "features nowhere --out x.npz": "nowhere is no run folder",
    "table nowhere": "nowhere is no run folder, benchmark folder or exported cell",
    "report mine=nowhere": "nowhere is no run folder, benchmark folder or exported cell",
    "data check nowhere": "nowhere does not exist; expected the root of a dataset: llcm, manifest, regdb",
    "bench nowhere.yaml": "no benchmark spec nowhere.yaml",
    "reproduce mlut/synthetic": "no recipe 'mlut/synthetic'; did you mean 'mult/synthetic'?",
}


def without_torch(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *command.split(" ")],
        capture_output=True,
        encoding="utf-8",
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1", "COLUMNS": "200"},
    )


@pytest.mark.parametrize("command", ANSWERS)
def test_a_wrong_word_is_answered_without_torch(command: str, tmp_path: Path) -> None:
    done = without_torch(command, tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Error: "), done.stderr
    assert ANSWERS[command] in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_every_plugin_of_ours_is_listed_without_torch(tmp_path: Path) -> None:
    listed = without_torch("list", tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "can't be loaded" not in listed.stdout
    assert "mult/synthetic" in listed.stdout


def test_options_are_shown_without_torch(tmp_path: Path) -> None:
    shown = without_torch("show mult", tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "how strongly a sample is held" in shown.stdout


def test_an_outline_tells_what_the_class_does() -> None:
    for kind in KINDS:
        for point in installed(f"reidassoc.{kind}"):
            if ours(point):
                outlined, cls = registry.get(kind, point.name, outlined=True), registry.get(kind, point.name)
                assert outlined is not cls
                assert options_of(outlined) == options_of(cls)
                assert outlined.__doc__ == cls.__doc__
                for name in DECLARED:
                    declared = getattr(cls, name, None)
                    told = None if isinstance(declared, property) else declared  # it depends on the options
                    assert getattr(outlined, name, None) == told, f"{cls.__name__}.{name}"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_console_that_is_not_utf_8_is_spelled_for(encoding: str) -> None:
    show = [sys.executable, "-m", "reidassoc", "show", "mult"]
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": encoding, "COLUMNS": "200"}
    done = subprocess.run(show, capture_output=True, encoding=encoding, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert ">= 0 and <= 1" in done.stdout


def test_a_wrong_word_in_a_spec_is_answered_without_torch(tmp_path: Path) -> None:
    spec = "name: mine\nmethods: {mine: {associator: mult(alfa=1)}}\ndatasets: [synthetic]\nseeds: [0]\n"
    (tmp_path / "mine.yaml").write_text(spec, encoding="utf-8")
    done = without_torch("bench mine.yaml", tmp_path)
    assert done.returncode == 2, done.stderr
    assert "method 'mine': mult: no option 'alfa'; did you mean 'alpha'?" in done.stderr
