"""Write into the page of every method what it reaches: ``python docs/method_results.py``.

The figures are those of stored cells, which
``reidassoc bench benchmarks/specs/every_method.yaml --device cpu --export benchmarks/results/every_method`` made; nothing is run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from reidassoc.tables.formats import markdown, write_between
from reidassoc.tables.read import Results, read_results
from reidassoc.tables.table import compare_results, measured_on

ROOT = Path(__file__).parent.parent
STORE = ROOT / "benchmarks" / "results" / "every_method"
PAGES = ROOT / "docs" / "methods"
MARKER = "docs/method_results.py"
PROTOCOL = "all-search single-shot"
COLUMNS = ("seeds", "rank1", "mAP", "precision")
# The rows of the benchmark that are a page's own.
METHODS: dict[str, tuple[str, ...]] = {
    "mult": ("mult",),
    "mmm": ("mmm", "mmm, as released"),
    "salcr": ("salcr",),
    "pgm": ("pgm",),
    "otla": ("otla",),
    "bccm": ("bccm",),
    "adca": ("cma",),
    "cclnet": ("cclnet",),
    "gur": ("clu",),
    "hil": ("brst",),
    "rpnr": ("rpnr",),
    "nulc": ("nulc",),
}
BELOW = f"""
Each method has its own recipe on the [synthetic pedestrians](../synthetic.md), so that a difference is the whole recipe's, not the
association's alone; in at most 54 epochs and without averaged weights, as `benchmarks/specs/every_method.yaml` says. `base` is
stage 1 for as long as MULT trains; `nearest` and `oracle` run in MULT's recipe. We have measured no figures on photographs. Made by
`python {MARKER}` from the cells in `benchmarks/results/every_method`, which this made:
`reidassoc bench benchmarks/specs/every_method.yaml --device cpu --export benchmarks/results/every_method`.
"""


def table(page: str, results: Results) -> str:
    """A page's table: its method between what needs no association, the simplest one, and the upper bound."""
    rows = ("base", "nearest", *METHODS[page], "oracle")
    own = replace(
        results,
        outcomes=tuple(outcome for outcome in results.outcomes if outcome.name in rows),
        missing=tuple(lacking for lacking in results.missing if lacking[0] in rows),
        names=rows,
        title="Synthetic pedestrians",
    )
    compared = compare_results(own, protocol=PROTOCOL, columns=COLUMNS, allow=True, beside_published=False)
    return f"{measured_on(own)} {markdown(compared)}{BELOW}"


if __name__ == "__main__":
    stored = read_results([STORE])
    for name in METHODS:
        write_between(PAGES / f"{name}.md", table(name, stored), MARKER)
        print(name)
