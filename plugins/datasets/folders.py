"""Entries of a downloaded dataset, found whatever their case and separators; a wrong root ends in a clear error."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from reidassoc.data.images import SUFFIXES
from reidassoc.errors import DataError

LISTED_AT_MOST = 8  # names that an error message shows of a folder
SAVE_AS = "save it as UTF-8 (in Excel: CSV UTF-8)"
DIGITS = 9  # of an identity, camera or tracklet, at most: sums of two still fit int64 by far


def plain(name: str) -> str:
    """A name without case and separators: ``Test-Vis`` and ``test_vis`` are the same."""
    return re.sub(r"[\s_\-]", "", name).lower()


def is_number(word: str) -> bool:
    """Whether a word is a whole number from 0, of no more than nine digits."""
    return word.isdecimal() and len(word) <= DIGITS


def spellings(folder: Path, name: str) -> list[str]:
    """Names in ``folder`` that differ from ``name`` in case and separators only, sorted; none where it can't be read."""
    try:
        return sorted(entry for entry in os.listdir(folder) if plain(entry) == plain(name))
    except OSError:
        return []


def find(folder: Path, name: str) -> Path | None:
    """Return the entry of ``folder`` with a name, in whatever spelling; None if there is not one.

    Raises:
        DataError: two entries have that name, in two spellings.
    """
    found = spellings(folder, name)
    if len(found) > 1:
        raise DataError(twice(folder, found, name))
    return folder / found[0] if found else None


def twice(folder: Path, names: Sequence[str], meaning: str) -> str:
    """The message for names of one folder that mean one thing: whichever is read, images of the other would vanish."""
    return f"{folder}: {' and '.join(names)} both name {meaning}; join them, or move one elsewhere"


def check_root(root: Path, layout: str, needed: Sequence[str], expected: str) -> Path:
    """Return the root if it is a folder with every entry of ``needed``.

    Raises:
        DataError: it is not; the message says what was looked for, what was found, and what the layout contains.
    """
    root = Path(root).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}; expected the root of {layout}, with {', '.join(needed)} ({expected})")
    missing = [name for name in needed if find(root, name) is None]
    if missing:
        inside = [e for e in folders_in(root) if all(spellings(root / e, name) for name in needed)]
        hint = f"; did you mean {root / inside[0]}?" if inside else ""
        raise DataError(
            f"{root} is not {layout}: no {', '.join(missing)} in it, found {contents(root)}; expected {expected}{hint}"
        )
    return root


def contents(folder: Path) -> str:
    """What is in a folder, in a few words."""
    names = sorted(name + ("/" if (folder / name).is_dir() else "") for name in os.listdir(folder))
    if not names:
        return "an empty folder"
    more = f" and {len(names) - LISTED_AT_MOST} more" if len(names) > LISTED_AT_MOST else ""
    return ", ".join(names[:LISTED_AT_MOST]) + more


def folders_in(folder: Path) -> list[str]:
    """Names of the visible sub-folders, sorted."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> list[str]:
    """Names of the image files in a folder, sorted; hidden files don't count."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.name.lower().endswith(SUFFIXES) and not e.name.startswith("."))


def persons(root: Path, folder: Path) -> dict[int, list[str]]:
    """Images by identity in ``folder/{identity}/``, as sorted paths relative to the root; other folders are passed over.

    Raises:
        DataError: two folders with images have one identity's number, as ``0001`` and ``1``.
    """
    images: dict[int, list[str]] = {}
    spelt: dict[int, str] = {}
    for name in folders_in(folder):
        if is_number(name) and (files := images_in(folder / name)):
            number = int(name)
            if number in images:
                raise DataError(twice(folder, [spelt[number], name], f"identity {number}"))
            spelt[number] = name
            images[number] = [(folder / name / file).relative_to(root).as_posix() for file in files]
    return images


def cameras(root: Path, folder: Path, numbers: Sequence[int]) -> dict[int, dict[int, list[str]]]:
    """Images by camera and identity in ``folder/cam{n}/{identity}/``; a camera without a folder is absent."""
    folders = {number: find(folder, f"cam{number}") for number in numbers}
    return {number: persons(root, path) for number, path in folders.items() if path is not None and path.is_dir()}


def text_of(path: Path) -> str:
    """The content of a text file in UTF-8, with or without a byte order mark.

    Raises:
        DataError: the file is missing or not such text; the message says what it seems to be.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; found {contents(path.parent)}") from None
    except OSError as error:
        raise DataError(f"{path}: can't be read as text: {error.strerror}") from error
    try:
        if b"\0" in content:
            raise DataError(
                f"{path}: can't be read as text: its encoding is utf-16, or it is not text at all; {SAVE_AS}"
            )
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: can't be read as text: line {line} is not UTF-8, perhaps Latin-1 (Windows ANSI); {SAVE_AS}"
        ) from error


def lines_of(path: Path) -> list[str]:
    """The lines of a text file that are not blank.

    Raises:
        DataError: the file is missing or not UTF-8 text.
    """
    return [line.strip() for line in text_of(path).splitlines() if line.strip()]


def identities_of(path: Path) -> list[int]:
    """Sorted identities from a file of comma-separated numbers.

    Raises:
        DataError: an entry is not a number, or the file has no entries.
    """
    words = re.split(r"[,\s]+", ",".join(lines_of(path)).strip(", \t"))
    wrong = [word for word in words if not is_number(word)]
    if wrong:
        raise DataError(
            f"{path}: expected comma-separated identity numbers of at most {DIGITS} digits, found '{wrong[0][:40]}'"
        )
    return sorted({int(word) for word in words})


def labelled_paths(path: Path, root: Path) -> list[tuple[str, int]]:
    """``(relative path, label)`` from lines ``relative/path label``; the first folder as it is spelt in the root.

    Raises:
        DataError: a line has another form, a path leaves the root or is listed twice, or the file has no lines.
    """
    found: dict[str, int] = {}
    spelt: dict[str, str] = {}
    for number, line in enumerate(lines_of(path), start=1):
        name, _, label = line.rpartition(" ")
        if not name or not is_number(label.removeprefix("-")):
            raise DataError(
                f"{path}, line {number}: expected 'relative/path label', the label a whole number of at most {DIGITS} digits, "
                f"found '{line[:200]}'"
            )
        first, *rest = PurePosixPath(inside(name.strip(), f"{path}, line {number}")).parts
        if rest and first not in spelt:
            there = find(root, first)
            spelt[first] = there.name if there else first
        name = PurePosixPath(spelt.get(first, first), *rest).as_posix()
        if name in found:
            raise DataError(f"{path}, line {number}: {name} is listed twice")
        found[name] = int(label)
    if not found:
        raise DataError(f"{path}: no images are listed; expected lines 'relative/path label'")
    return list(found.items())


def inside(name: str, where: str) -> str:
    """Return a relative path with forward slashes.

    Raises:
        DataError: it is absolute, empty or climbs out of the root.
    """
    parts = PureWindowsPath(name).parts if "\\" in name else PurePosixPath(name).parts
    absolute = PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
    if not parts or absolute or ".." in parts or "\0" in name:
        raise DataError(f"{where}: the path '{name}' must be relative and stay inside the dataset's root")
    return PurePosixPath(*parts).as_posix()
