"""The speed suite of the repository, started from anywhere. It is not installed: its plain versions are of no use elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from reidassoc.errors import ReidassocError

PACKAGE = Path(__file__).resolve().parents[1]
SUITES = {"stages": "run.py", "label_stage": "label_stage.py", "scale": "scale.py"}


def suite_folder() -> Path:
    """Where the checkout that this package is imported from keeps the suite.

    Raises:
        ReidassocError: the package was installed without the repository.
    """
    folder = PACKAGE.parent / "benchmarks" / "perf"
    if not (folder / SUITES["stages"]).is_file():
        raise ReidassocError(
            "bench perf runs benchmarks/perf of the repository, which an installed reidassoc does not have; "
            "clone the repository, run scripts/setup in it, and take its .venv/bin/reidassoc"
        )
    return folder


def run_suite(arguments: Sequence[str]) -> int:
    """Run a script of the suite in a process of its own; return its exit code.

    Args:
        arguments: the name of a script (``stages``, ``label_stage``, ``scale``), which may be left out for ``stages``, and
            what is passed on to it.
    """
    name, rest = (arguments[0], arguments[1:]) if arguments and arguments[0] in SUITES else ("stages", arguments)
    return subprocess.run([sys.executable, str(suite_folder() / SUITES[name]), *rest]).returncode
