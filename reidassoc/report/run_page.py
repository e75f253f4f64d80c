"""A run's own page, made as it ends."""

from __future__ import annotations

import shlex

from reidassoc.errors import ReidassocError
from reidassoc.report.page_writer import write_report
from reidassoc.runs.observer import Observer
from reidassoc.runs.result import Result

PAGE = "report.html"


class OwnPage(Observer):
    """Writes ``report.html`` into the run folder; a page that can't be made does not spoil the run.

    Attributes:
        problem: why there is no page, once the run has ended; empty if there is one.
    """

    problem: str = ""

    def finish(self, result: Result) -> None:
        try:
            write_report([result.folder], result.folder / PAGE, device="cpu")
        except (ReidassocError, OSError) as error:
            self.problem = f"no {PAGE}: {error}"
        except Exception as error:  # a fault of ours must not end a run that is whole
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            again = f"reidassoc report {shlex.quote(str(result.folder))}"
            self.problem = f"no {PAGE}, by a fault of reidassoc's: {reason}; the run is whole; more: {again}"
