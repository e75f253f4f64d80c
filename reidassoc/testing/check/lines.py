"""Which line of its author's file a plug-in was at."""

from __future__ import annotations

import inspect
import linecache
import traceback
from collections.abc import Iterable
from types import FrameType


def own_line(stack: Iterable[tuple[FrameType, int]], plugin: object) -> str:
    """The innermost line of the plug-in's own file, as ``file.py, line 7: code``; empty if there is none.

    Args:
        stack: frames and line numbers, the innermost first, as `traceback.walk_stack` has them.
        plugin: whose class the file holds.
    """
    try:
        file = inspect.getsourcefile(type(plugin))
    except TypeError:  # typed at a prompt
        return ""
    for frame, number in stack:
        if frame.f_code.co_filename == file:
            linecache.checkcache(file)  # edited since, and loaded again
            code = traceback.FrameSummary(file, number, frame.f_code.co_name).line
            return f"{file.rpartition('/')[2]}, line {number}: {code}"
    return ""
