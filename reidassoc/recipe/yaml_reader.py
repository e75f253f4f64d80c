"""YAML that others wrote: plain values alone, and of a size that a person could have written."""

from __future__ import annotations

from typing import Any

import yaml

from reidassoc.errors import RecipeError

MERGE = "tag:yaml.org,2002:merge"  # <<: *name, which may stand beside what it is merged with
LIMIT = 100_000  # values; aliases (*name) count as often as they stand


class Loader(yaml.SafeLoader):
    """Plain values; a key that stands twice in a mapping is a fault, of which the usual loader says nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if (key.tag, key.value) in seen:
                    raise ValueError(f"line {key.start_mark.line + 1}: the key '{key.value}' stands there already")
                seen.add((key.tag, key.value))
        return node


def read_yaml(text: str, name: str) -> Any:
    """Return what the text says.

    Raises:
        RecipeError: it is no YAML, a key stands twice in a mapping, or aliases unfold to more than ``LIMIT`` values, or to no end.
    """
    try:
        value = Loader(text).get_single_data()
        unfolded(value, {})
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise RecipeError(f"{name} is no YAML: {line}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError, LookupError) as error:
        raise RecipeError(f"{name} is no YAML: {(str(error) or 'it is nested too deeply').splitlines()[0]}") from None
    return value


def unfolded(value: Any, known: dict[int, int]) -> int:
    """How many values a nest has, counting what is shared each time.

    Args:
        known: by id; 0 while a value is being counted.
    """
    if not isinstance(value, (dict, list, tuple, set)):
        return 1
    if id(value) in known:
        if known[id(value)] == 0:
            raise ValueError("an alias holds itself")
        return known[id(value)]
    known[id(value)] = 0
    inner = [*value, *value.values()] if isinstance(value, dict) else value
    total = 1 + sum(unfolded(item, known) for item in inner)
    if total > LIMIT:
        raise ValueError(f"more than {LIMIT} values")
    known[id(value)] = total
    return total
