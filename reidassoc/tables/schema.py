"""What a result that somebody else may have written must hold before a table is made of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from reidassoc.errors import DataError, SpecError
from reidassoc.registry.spec import Spec

Number = Annotated[float, Field(strict=True, allow_inf_nan=True)]


class Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class Figure(Part):
    """None where no query has a match."""

    mean: Number | None


class Figures(Part):
    """Metrics of a protocol; every one has its mAP."""

    __pydantic_extra__: dict[str, Figure] = Field(init=False)
    mAP: Figure


class Best(Part):
    mAP: Figure


class Method(Part):
    associator: str | None
    network: str
    __pydantic_extra__: dict[str, JsonValue] = Field(init=False)


class Data(Part):
    spec: str
    fingerprint: str


class Setting(Part):
    test_time: list[str] = []


class Answers(Part):
    """Average precision of each query, None where it was left out, and which person it shows."""

    precision: list[Annotated[float, Field(strict=True, ge=0, le=1)] | None]
    person: list[int]

    @model_validator(mode="after")
    def both_of_every_query(self) -> Answers:
        if len(self.precision) != len(self.person):
            raise ValueError(f"{len(self.precision)} queries have a precision and {len(self.person)} a person")
        return self


class Seconds(Part):
    all_epochs: Number


class Environment(Part):
    """The machine, as a table's caption names it."""

    device: str
    threads: int
    torch: str


class StoredResult(Part):
    """The part of ``result.json`` and of an exported cell that tables use."""

    recipe: str
    seed: int
    method: Method
    dataset: Data
    protocols: dict[str, Figures] = Field(min_length=1)
    best_epoch_oracle: dict[str, Best] = {}
    labels: dict[str, Number | None] = {}
    flags: list[str]
    notes: list[str] = []
    setting: Setting = Setting()
    configuration: dict[str, JsonValue] = {}
    files: dict[str, str] = {}
    environment: Environment
    row: str | None = None
    place: int = 0
    date: str = ""
    queries: dict[str, Answers] = {}
    seconds: Number | Seconds = math.nan


def read_failure(path: Path) -> dict[str, str]:
    """Why a cell failed: ``{"error": one line, "details": traceback}``; of a damaged file, that it can't be read.

    Raises:
        FileNotFoundError: it did not fail.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"error": " ".join(str(found["error"]).split()), "details": str(found.get("details", ""))}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {"error": f"{path.name} can't be read", "details": ""}


def read_result(path: Path) -> dict[str, Any]:
    """The content of a result's file, checked.

    Raises:
        DataError: it can't be read, or lacks or spoils what tables need; the message names the first fault.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        StoredResult.model_validate(data)
        for text in (data["dataset"]["spec"], data["method"]["network"], data["method"]["associator"] or "none"):
            Spec.parse(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "it"
        raise DataError(f"{path} holds no result of a run: {place}: {first['msg']}") from None
    except (OSError, ValueError, RecursionError, SpecError) as error:
        raise DataError(f"{path} holds no result of a run ({type(error).__name__}: {error})") from None
    return data  # type: ignore[no-any-return]
