"""What is wrong with YAML that somebody wrote, in words: where, what was expected, what stands there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from reidassoc.errors import nearest_name
from reidassoc.registry.spec import QUOTE

EXPECTED: Mapping[str, Callable[[Mapping[str, Any], Any], str]] = {
    "bool": lambda limits, given: "true or false",
    "dict": lambda limits, given: "a mapping, as in {key: value}",
    "finite_number": lambda limits, given: "a finite number",
    "float": lambda limits, given: "a number",
    "greater_than": lambda limits, given: f"more than {limits['gt']:g}",
    "greater_than_equal": lambda limits, given: f"at least {limits['ge']:g}",
    "int": lambda limits, given: "a whole number",
    "less_than": lambda limits, given: f"less than {limits['lt']:g}",
    "less_than_equal": lambda limits, given: f"at most {limits['le']:g}",
    "list": lambda limits, given: f"a list, as in [{example(given)}]",
    "literal_error": lambda limits, given: str(limits["expected"]),
    "string": lambda limits, given: "text",
    "string_pattern_mismatch": lambda limits, given: "a name of letters, digits, '_', '-' and '.'",
    "too_long": lambda limits, given: f"at most {limits['max_length']} of them",
    "too_short": lambda limits, given: f"at least {limits['min_length']} of them",
}
SAME = {"tuple": "list", "model": "dict"}  # what YAML and JSON call it
SHOWN = 60  # characters of what was given


def first_fault(error: ValidationError) -> ErrorDetails:
    """The fault to tell of: a key that is unknown may be why another one is missing, so that comes first."""
    faults = error.errors()
    return next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])


def unknown_key(key: object, place: str, known: Iterable[str], *, listed: bool = False) -> str:
    """What to say of a key that nobody knows; one with ``=`` or a bracket was cut off a spec by a comma."""
    if any(sign in str(key) for sign in "=()[]"):
        return f"no key '{place}': {QUOTE}"
    names = list(known)
    return f"no key '{place}'{nearest_name(str(key), names)}{'; keys there: ' + ', '.join(names) if listed else ''}"


def in_words(fault: ErrorDetails, place: str) -> str:
    """What should stand at a place, and what does: ``seeds: expected a list, as in [2], got 2``."""
    given, kind = fault["input"], fault["type"]
    if kind == "missing":
        return f"the key '{place}' is missing"
    if kind == "value_error":
        return f"{place}: {fault['msg'].removeprefix('Value error, ')}"
    name = kind.removesuffix("_type").removesuffix("_parsing").removesuffix("_from_float")
    say = EXPECTED.get(SAME.get(name, name))
    wanted = say(fault.get("ctx", {}), given) if say else fault["msg"].removeprefix("Input should be ")
    text = repr(given)
    return f"{place}: expected {wanted}, got {text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}"


def example(given: object) -> str:
    """What would stand in a list instead of one value alone."""
    return repr(given) if isinstance(given, (str, int, float)) and len(repr(given)) <= SHOWN else "0, 1"
