"""A plug-in's options: what its dataclass fields say of their types, ranges and meaning, and their validation."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from reidassoc.errors import DataError, PluginError, SpecError, nearest_file, nearest_name

REQUIRED = "required"  # in the place of a default
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}


@dataclass(frozen=True)
class Option:
    """One option as ``reidassoc show`` prints it."""

    name: str
    type: str
    default: str
    range: str
    doc: str


def options_of(cls: type) -> list[Option]:
    """Describe a plug-in's options, in the order of its fields."""
    hints = hints_of(cls)
    return [describe(f.name, hints[f.name], default_of(f)) for f in fields(cls) if f.init]


def default_of(field: Field[Any]) -> Any:
    """What an option is if it isn't given; MISSING if it must be."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def defaults_of(cls: type) -> dict[str, Any]:
    """What each option of a plug-in is if it isn't given; MISSING where it must be."""
    hints_of(cls)  # a PluginError if it is not a dataclass
    return {f.name: default_of(f) for f in fields(cls) if f.init}


def checked_options(cls: type, options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Check options against their fields' types and ranges; return the values as the fields have them.

    Raises:
        SpecError: an option is unknown (the nearest name is suggested), of a wrong type or out of range.
        PluginError: the class is not a dataclass.
    """
    hints = hints_of(cls)
    known = [f.name for f in fields(cls) if f.init]
    values = {}
    for key, value in options.items():
        if key not in known:
            listed = f"options: {', '.join(known)}" if known else "it has no options"
            raise SpecError(f"{name}: no option '{key}'{nearest_name(key, known)}; {listed}")
        values[key] = checked(value, hints[key], f"{name}: {key}")
    return values


def construct(cls: type, options: Mapping[str, Any], name: str) -> Any:
    """Make an instance after checking every option against its field's type and range.

    Raises:
        SpecError: an option is unknown (the nearest name is suggested), of a wrong type, out of range or missing.
        PluginError: the class is not a dataclass, or lacks a method of its kind.
    """
    values = checked_options(cls, options, name)
    if lacking := sorted(getattr(cls, "__abstractmethods__", ())):
        raise PluginError(
            f"{name}: class {cls.__name__} has no method {' and no '.join(lacking)}, which its kind needs"
        )
    missing = [f.name for f in fields(cls) if f.init and default_of(f) is MISSING and f.name not in values]
    if missing:
        otherwise = ", or --data FOLDER" if missing[0] == "root" and getattr(cls, "kind", "") == "datasets" else ""
        raise SpecError(f"{name}: option '{missing[0]}' is required, as in {name}({missing[0]}=…){otherwise}")
    try:
        return cls(**values)
    except ValueError as error:
        raise SpecError(f"{name}: {error}") from error
    except TypeError as error:  # an abstract method that the class doesn't have, say
        raise PluginError(f"{name}: {error}") from error


def checked(value: Any, hint: Any, what: str) -> Any:
    """Return ``value`` as the hinted type; no text turns into a number, no number into a truth value."""
    if value is None and type_text(hint) == "str":
        value = "none"  # a bare word in a spec, as in weights=none
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        expected = first["msg"][0].lower() + first["msg"][1:]
        raise SpecError(f"{what} must be {type_text(hint)}{range_text(hint)}, got {value!r} ({expected})") from None
    except (TypeError, ValueError):
        raise SpecError(f"{what} must be {type_text(hint)}{range_text(hint)}, got {value!r}") from None


def refuse_out_of_range(plugin: Any) -> None:
    """Raise SpecError if an option of an object made by hand, which nobody checked, is out of its own range."""
    if not is_dataclass(plugin):
        return
    hints = hints_of(type(plugin))
    for f in fields(plugin):
        if f.init and range_text(hints[f.name]):
            checked(getattr(plugin, f.name), hints[f.name], f"{type(plugin).__name__}: {f.name}")


def refuse_missing_files(plugin: Any, name: str) -> None:
    """Raise DataError if an option of type ``Path`` names what is not there."""
    hints = hints_of(type(plugin))
    for f in fields(plugin):
        path = getattr(plugin, f.name, None)
        if isinstance(path, Path) and not path.expanduser().exists():
            path, doc = path.expanduser(), describe(f.name, hints[f.name], MISSING).doc
            near = nearest_file(path, *([path.suffix] if path.suffix else []))
            raise DataError(f"{path} does not exist{near}; expected for {name}({f.name}=…): {doc or 'a path'}")


def hints_of(cls: type) -> dict[str, Any]:
    if not is_dataclass(cls):
        raise PluginError(
            f"{cls.__name__} must be a frozen, keyword-only dataclass: its fields are its options; put "
            f"@dataclass(frozen=True, kw_only=True) above class {cls.__name__}"
        )
    try:
        return typing.get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, PydanticUserError) as error:
        raise PluginError(f"{cls.__name__}: the types of its fields can't be resolved: {error}") from error


def describe(name: str, hint: Any, default: Any) -> Option:
    doc = next((info.description for info in infos(hint) if info.description), "")
    text = REQUIRED if default is MISSING else repr(default)
    return Option(name, type_text(hint), text, range_text(hint).removeprefix(" "), doc)


def infos(hint: Any) -> list[FieldInfo]:
    return [item for item in getattr(hint, "__metadata__", ()) if isinstance(item, FieldInfo)]


def type_text(hint: Any) -> str:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return type_text(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return " | ".join(repr(choice) for choice in typing.get_args(hint))
    if origin is None:
        return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))
    if str(origin) in {"typing.Union", "<class 'types.UnionType'>", "<class 'typing.Union'>"}:
        return " | ".join(type_text(arg) for arg in typing.get_args(hint))
    return str(hint).replace("typing.", "").replace("NoneType", "none")


def range_text(hint: Any) -> str:
    parts = []
    for info in infos(hint):
        for constraint in info.metadata:
            parts += [f"{sign} {getattr(constraint, key)}" for key, sign in BOUNDS.items() if hasattr(constraint, key)]
    return f" {' and '.join(parts)}" if parts else ""
