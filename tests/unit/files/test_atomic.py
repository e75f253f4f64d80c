"""Files that appear whole or not at all, and what must not be replaced by one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from reidassoc.errors import DataError
from reidassoc.files.arrays import write_arrays
from reidassoc.files.atomic import whole_file, write_text


def test_a_file_that_is_not_finished_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", "old")

    def interrupted() -> None:
        with whole_file(tmp_path / "x.txt") as place:
            place.write_text("ne")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert (tmp_path / "x.txt").read_text() == "old"
    write_text(tmp_path / "x.txt", "new ä")
    assert (tmp_path / "x.txt").read_bytes() == "new ä".encode()
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


def test_a_link_goes_on_pointing_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "x.npz").symlink_to(tmp_path / "there" / "y.npz")
    for number in (1, 2):
        write_arrays(tmp_path / "x.npz", {"a": np.array([number])})
        assert (tmp_path / "x.npz").is_symlink()
        with np.load(tmp_path / "there" / "y.npz") as file:
            assert file["a"].tolist() == [number]


def test_a_device_is_written_to_not_replaced(tmp_path: Path) -> None:
    """As root, replacing it would leave an ordinary file in place of /dev/null."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text(pipe, "table")
        assert os.read(reader, 99) == b"table"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_can_not_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"can't write .*nowhere/x\.txt: No such file or directory"):
        write_text(tmp_path / "nowhere" / "x.txt", "")
    with pytest.raises(DataError, match=r"can't write .*: Is a directory"):
        write_text(tmp_path, "")
    assert list(tmp_path.iterdir()) == []
