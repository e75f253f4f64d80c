"""What a run shows on a terminal: bars with losses, images per second and the time left, and a line for each epoch."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from reidassoc.runs import terminal as module
from reidassoc.runs.terminal import Terminal


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What is written to a terminal of 140 columns."""
    written = io.StringIO()
    monkeypatch.setattr(
        module,
        "Console",
        lambda **options: Console(**{**options, "file": written, "force_terminal": True, "width": 140}),
    )
    return written


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_bars_show_losses_images_per_second_and_the_time_left(
    shown: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([100.0, 104.0, 112.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    log = Terminal()
    log.start(tmp_path)
    log.epoch(3, 10, "cross", 40)
    seen = []
    for number, loss in ((10, 2.5), (20, 1.25), (30, 0.125)):
        log.step(number, {"loss": loss}, images=128)
        shown.truncate(0)
        log.bars.refresh()
        seen.append(" ".join(plain(shown.getvalue()).split()))
    log.close()
    assert all("3/10" in text and "stage cross" in text for text in seen)
    assert all(re.search(r"\d+/40 (\d+:\d\d:\d\d|-:--:--) ", text) for text in seen)  # the time left
    assert "images/s" not in seen[0]  # what came before warmed up
    assert "loss 2.500" in seen[0]
    assert "320 images/s loss 1.250" in seen[1]  # 10 steps in 4 s
    assert "213 images/s loss 0.125" in seen[2]  # 20 steps in 12 s


def test_an_epoch_is_a_line_on_the_terminal_and_in_the_log(shown: io.StringIO, tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "epoch": 7, "stage": "cross", "losses": {"loss": 1.5}, "clusters": {"visible": 20, "infrared": 19},
        "labels": {"visible/precision_cross": 0.5, "infrared/precision_cross": 0.75},
        "retrieval": {"all": {"rank1": {"mean": 60.0, "std": 0.0}, "mAP": {"mean": 55.04, "std": 0.0}}},
        "seconds": {"extract": 1.0, "train": 2.5},
    }  # fmt: skip
    log = Terminal()
    log.once("a note [b]")  # before there is a folder
    log.start(tmp_path)
    log.once("a note [b]")
    log.report(row)
    log.report({"epoch": 8, "stage": "cross", "losses": {}, "seconds": {}})
    wanted = [
        "a note [b]",
        "epoch   7  cross   loss 1.500  clusters 20/19  cross precision 62.5 %  all: Rank-1 60.0  mAP 55.0  3.5 s",
        "epoch   8  cross   no training  0.0 s",
    ]
    assert (tmp_path / "log.txt").read_text().splitlines() == wanted
    assert [line.rstrip() for line in plain(shown.getvalue()).splitlines() if line.strip()] == wanted
