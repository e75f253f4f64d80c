"""Some hundreds of hostile inputs for everything that reads what others wrote; ``tests/support/fuzzing.py`` makes thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fuzzing import GUARD, TARGETS, fuzz

EXAMPLES = 40


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_read_or_refused_in_one_line(name: str) -> None:
    count = fuzz(name, EXAMPLES)
    assert count["more than one line"] == 0
    assert count["refused"] > 0
    assert count.total() >= EXAMPLES / 2


def test_the_guard_sees_what_it_is_there_for(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with GUARD.on(inside):
        (inside / "file").write_text("allowed")
    with pytest.raises(AssertionError, match=r"input made it do this: .*outside"), GUARD.on(inside):
        (inside / ".." / "outside").write_text("not allowed")
