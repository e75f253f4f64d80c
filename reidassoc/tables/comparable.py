"""What must agree before figures may stand in one table, and who disagrees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reidassoc.errors import DataError
from reidassoc.registry.spec import Spec
from reidassoc.tables.read import Outcome

PLAIN = "plain"
DATA = "data fingerprint"


def setting(data: Mapping[str, Any], protocol: str) -> dict[str, str]:
    """What a result's figures depend on besides the method, by the words that a refusal uses."""
    network = Spec.parse(data["method"]["network"])
    steps = data.get("setting", {}).get("test_time", [])
    found = {
        "protocol": "any" if protocol in data["protocols"] else "others: " + ", ".join(data["protocols"]),
        "dataset": Spec.parse(data["dataset"]["spec"]).name,
        "galleries": str(Spec.parse(data["dataset"]["spec"]).options.get("galleries", "community")),
        "batch-norm groups": str(data.get("setting", {}).get("batch_norm_groups", 1)),
        "test-time steps": ", ".join(steps) or PLAIN,
        "backbone": str(network.without("weights")),
    }
    if "weights" in network.options:
        found["initial weights"] = str(network.options["weights"])
    return found


def differences(rows: Mapping[str, Sequence[Outcome]], protocol: str) -> dict[str, dict[str, list[str]]]:
    """In what the rows disagree: ``{what: {value: [rows]}}``. The data's fingerprints are compared as sets per row.

    Nor may one row be of two data under one spec, such as two manifests.
    """
    table: dict[str, dict[str, list[str]]] = {}
    for row, outcomes in rows.items():
        known: dict[str, set[str]] = {DATA: {str(o.data["dataset"]["fingerprint"]) for o in outcomes}}
        for outcome in outcomes:
            for what, value in setting(outcome.data, protocol).items():
                known.setdefault(what, set()).add(value)
        apart = len({str(outcome.dataset.without_roots()) for outcome in outcomes}) < len(known[DATA])
        for what, values in known.items():
            for text in sorted(values) if apart and what == DATA else [" and ".join(sorted(values))]:
                table.setdefault(what, {}).setdefault(text, []).append(row)
    return {what: values for what, values in table.items() if len(values) > 1 or not_there(what, values)}


def not_there(what: str, values: Mapping[str, Sequence[str]]) -> bool:
    return what == "protocol" and any(value != "any" for value in values)


def refuse(found: Mapping[str, Mapping[str, Sequence[str]]], protocol: str) -> None:
    """Raise DataError if rows disagree; one line that names what and who."""
    if "protocol" in found:
        lacking = {value: rows for value, rows in found["protocol"].items() if value != "any"}
        told = "; ".join(f"{', '.join(rows)} has {value.removeprefix('others: ')}" for value, rows in lacking.items())
        raise DataError(f"not every row has the protocol '{protocol}': {told}; choose one by --protocol")
    if found:
        raise DataError(
            f"these rows can't stand in one table; they differ in {described(found)}. "
            "Leave some out, or have the differences printed as footnotes with --allow"
        )


def described(found: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    parts = []
    for what, values in found.items():
        told = "; ".join(f"{value}: {', '.join(rows)}" for value, rows in values.items())
        parts.append(f"{what} ({told})")
    return ", ".join(parts)
