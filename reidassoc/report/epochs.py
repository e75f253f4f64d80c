"""Rows of ``metrics.jsonl``, checked: somebody else may have written them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reidassoc.errors import DataError
from reidassoc.runs.folder import RunFolder

Number = Annotated[float, Field(strict=True)]


class Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Figure(Part):
    mean: Number | None


class Epoch(Part):
    """What the report reads of an epoch."""

    epoch: Annotated[int, Field(ge=0, lt=10**6)]
    stage: str
    seconds: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = {}
    clusters: dict[str, Annotated[int, Field(ge=0, lt=10**9)]] = {}
    labels: dict[str, Number] = {}
    retrieval: dict[str, dict[str, Figure]] = {}


def read_epochs(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of a run's epochs.

    Raises:
        DataError: a row lacks or spoils what the report reads; the message names it.
    """
    try:
        rows = folder.metrics
    except (OSError, UnicodeError, RecursionError) as error:
        raise DataError(f"{folder.path / 'metrics.jsonl'} can't be read ({error})") from None
    for number, row in enumerate(rows, start=1):
        try:
            Epoch.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the row"
            raise DataError(f"{folder.path / 'metrics.jsonl'}, line {number}: {place}: {first['msg']}") from None
    return rows
