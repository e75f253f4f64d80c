"""A run's own page, made as it ends."""

from __future__ import annotations

from reidassoc.engine.log import Observer
from reidassoc.engine.result import Result
from reidassoc.errors import ReidassocError
from reidassoc.report.write import write_report

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
