"""Tables for terminals of any width: no digit is cut, and what is left out is told."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reidassoc.cli.output import console_of, print_labels, protocol_table, transductive_table
from reidassoc.evaluation.figures import NOTHING
from reidassoc.tables.terminal_table import Column, laid_out

OFFICIAL = [
    f"{search}-search {shots}-shot (official galleries)"
    for search in ("all", "indoor")
    for shots in ("single", "multi")
]
FIGURES = {name: {"mean": 87.61 + n, "std": 12.34 + n} for n, name in enumerate(("rank1", "rank5", "rank10", "rank20"))}
FIGURES |= {"mAP": {"mean": 100.0, "std": 10.25}, "mINP": {"mean": 5.61, "std": 33.37}}
PROTOCOLS: dict[str, Any] = dict.fromkeys(OFFICIAL, FIGURES)


def whole(printed: str, width: int) -> None:
    """Assert that nothing is cut or goes beyond the edge, and that every figure has its digits."""
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= width
    numbers = set(re.findall(r"\d+\.\d+", printed))
    assert numbers <= {f"{value:.1f}" for figure in FIGURES.values() for value in figure.values()}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_widest_protocols_keep_every_digit(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    protocol_table(PROTOCOLS, "runs/x", ["all: up to 1 of 3 queries"])
    printed = capsys.readouterr().out
    whole(printed, width)
    tight = printed.replace(" ± ", "±")
    assert tight.count("100.0±10.2") == tight.count("5.6±33.4") == tight.count("87.6±12.3") == len(OFFICIAL)
    words = printed.split()
    assert words.count("galleries)") == len(OFFICIAL)
    shown = {name for name in ("Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP") if name in words}
    spared = re.findall(r"Rank-\d+", printed.partition("Left out for want of width")[2].partition("\n")[0])
    assert ("--json has everything" in " ".join(words)) == bool(spared) == (width < 120)
    assert shown | set(spared) == {"Rank-1", "Rank-5", "Rank-10", "Rank-20", "mAP", "mINP"}


@pytest.mark.parametrize("width", [60, 80, 120])
def test_other_tables_keep_every_digit(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    transductive_table(PROTOCOLS, {"k_reciprocal(k1=20, k2=6, weight=0.3)": {"protocols": PROTOCOLS}})
    printed = capsys.readouterr().out.partition("figures\n")[2]
    assert "…" not in printed
    assert printed.replace(" ± ", "±").count("100.0±10.2") == 2 * len(OFFICIAL)


def test_a_figure_that_is_not_there_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = {"mean": None, "std": None}
    protocol_table({"all": dict.fromkeys(FIGURES, nothing)}, "runs/x", ["all: none of 3 queries"])
    printed = capsys.readouterr().out
    assert printed.count(NOTHING) >= 4
    assert "all: none of 3 queries" in printed
    assert "0.0" not in printed


def test_label_quality_over_nothing_is_a_dash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_labels(console_of(), {"visible/clusters": 0, "visible/identities": 0}, "Label quality")
    printed = capsys.readouterr().out
    assert printed.count(NOTHING) == 8
    assert "0 / 0" in printed


def test_columns_that_can_be_spared_go_in_their_order() -> None:
    columns = [Column("name", "words"), Column("kept"), Column("first", spare=2), Column("second", spare=1)]
    rows = [["a-rather-long-name", "1234567890", "12345678", "12345678"]]
    assert laid_out(columns, rows, 80).left_out == ()
    assert laid_out(columns, rows, 42).left_out == ("first",)
    assert laid_out(columns, rows, 26).left_out == ("first", "second")
    assert [cell.plain for cell in laid_out(columns, rows, 10).rows[0]][1] == "1234567890"
