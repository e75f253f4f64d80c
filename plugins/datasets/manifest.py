"""Any images at all, listed in a CSV file: how users bring data of their own."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from reidassoc.errors import DataError, nearest_name
from reidassoc.types import UNKNOWN_CAMERA, UNKNOWN_TRACKLET, Modality, Pair, Rule, Trial
from reidassoc_plugins.datasets import folders
from reidassoc_plugins.datasets.galleries import direction
from reidassoc_plugins.datasets.listing import Item, Listed, Part, files

FILE = "manifest.csv"
COLUMNS = ("path", "modality", "identity", "camera", "split")
NUMBERS = ("identity", "camera", "tracklet")  # tracklet is a column that may be left out
SPLITS = ("train", "query", "gallery")
DELIMITERS = ",;\t"  # spreadsheets write any of these; the header shows which
SHOWN = 100  # characters of a wrong header that its message quotes


@dataclass(frozen=True)
class Row:
    """One line of the manifest."""

    item: Item
    modality: Modality
    split: str


@dataclass(frozen=True, kw_only=True)
class Manifest(Listed):
    """Your own images, listed in a CSV file: path, modality, identity, camera, split, and tracklet if you have any.

    Paths are relative to the file's folder, or to ``images``; modality is ``visible`` or ``infrared``; split is
    ``train``, ``query`` or ``gallery`` (an image may be listed as query and as gallery). Identity may be empty in
    ``train``: then label quality is not reported. Camera may be empty, and so may tracklet: images of a modality with
    the same number are one person followed by one camera, for clusterers that use it. Each direction that has queries
    and a gallery is one trial. Columns may be separated by commas, semicolons or tabs.

    Raises:
        DataError: (when read) a line is wrong, with its number; or nothing is listed that was asked for.
    """

    root: Annotated[Path, Field(description=f"the CSV file, or the folder that contains {FILE}")]
    images: Annotated[
        Path | None, Field(description="folder that paths are relative to, itself relative to the CSV file's")
    ] = None
    ignore_same_identity_camera: Annotated[
        bool, Field(description="ignore gallery images with the query's identity and camera")
    ] = False
    first_occurrence: Annotated[
        bool, Field(description="CMC counts only the nearest image of each gallery identity, as on SYSU-MM01")
    ] = False

    paper: ClassVar[str] = ""

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether this is a manifest, or a folder that contains one."""
        return (root / FILE).is_file() or (root.is_file() and root.suffix.lower() == ".csv")

    def read_train(self) -> Pair[Part]:
        parts = Pair.build(lambda m: self._part(m, ("train",)))
        for modality in Modality:
            if not parts[modality].items:
                raise DataError(f"{self._file}: no {modality} image is listed as train; training needs both modalities")
        return parts

    def read_test(self) -> Pair[Part]:
        return Pair.build(lambda m: self._part(m, ("query", "gallery")))

    def trials(self) -> Sequence[Trial]:
        """One trial for each direction that has queries and a gallery; none if nothing but training images is listed.

        Raises:
            DataError: queries or gallery images are listed, but no direction has both.
        """
        rule = Rule(
            ignore_same_identity_camera=self.ignore_same_identity_camera, first_occurrence=self.first_occurrence
        )
        trials = []
        for modality in Modality:
            query, gallery = self._places(modality, "query"), self._places(modality.other, "gallery")
            if len(query) and len(gallery):
                trials.append(
                    Trial(
                        protocol=direction(modality),
                        number=0,
                        query_modality=modality,
                        query=query,
                        gallery=gallery,
                        rule=rule,
                    )
                )
        if not trials and any(part.items for part in self.testing):
            raise DataError(
                f"{self._file}: nothing to evaluate: list query images of one modality and gallery of the other"
            )
        return trials

    @cached_property
    def _file(self) -> Path:
        root = Path(self.root).expanduser()
        if root.is_file():
            return root
        if not root.is_dir():
            raise DataError(f"{root} does not exist; expected a CSV file, or a folder that contains {FILE}")
        if not (root / FILE).is_file():
            raise DataError(
                f"{root} contains no {FILE}, found {folders.contents(root)}; expected columns {','.join(COLUMNS)}"
            )
        return root / FILE

    @cached_property
    def _folder(self) -> Path:
        """Where the images are."""
        folder = self._file.parent / Path(self.images or "").expanduser()
        if not folder.is_dir():
            raise DataError(f"images={self.images}: {folder} is not a folder; expected the one that paths start from")
        return folder

    @cached_property
    def _rows(self) -> list[Row]:
        text = folders.text_of(self._file)
        skipped = int(text[:4].lower() == "sep=")  # Excel's own line before the header
        body = text.split("\n", skipped)[-1]
        first = "".join(body.splitlines()[:1])
        table = csv.DictReader(StringIO(body, newline=""), delimiter=max(DELIMITERS, key=first.count))
        try:
            header = table.fieldnames = [name.strip().lower() for name in table.fieldnames or ()]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise DataError(
                    f"{self._file}: no column {', '.join(missing)}; expected the header {','.join(COLUMNS)}, "
                    f"found '{first.strip()[:SHOWN]}'"
                )
            twice = sorted({name for name in (*COLUMNS, *NUMBERS) if header.count(name) > 1})
            if twice:
                raise DataError(f"{self._file}: several columns {', '.join(twice)}; keep one of each name")
            lines = [({k: (v or "").strip() for k, v in line.items() if k}, table.line_num + skipped) for line in table]
        except csv.Error as error:
            raise DataError(f"{self._file}, line {table.line_num + skipped + 1}: {error}") from error
        # A row of nothing but commas is what a spreadsheet leaves of a deleted one.
        rows = [self._row(values, f"{self._file}, line {number}") for values, number in lines if any(values.values())]
        self._check_repeats(rows)
        self._check_tracklets(rows)
        return rows

    def _row(self, values: dict[str, str], where: str) -> Row:
        for column, known in (("modality", [str(modality) for modality in Modality]), ("split", list(SPLITS))):
            if values[column] not in known:
                close = nearest_name(values[column], known)
                raise DataError(f"{where}: {column} must be {' or '.join(known)}, got '{values[column]}'{close}")
        for column in NUMBERS:
            typed = values.get(column, "")
            values[column] = typed.removesuffix(".0")  # as pandas writes a column with gaps
            if typed and not folders.is_number(values[column]):
                raise DataError(
                    f"{where}: {column} must be a whole number from 0, of at most {folders.DIGITS} digits, or empty, got "
                    f"'{typed[:40]}'"
                )
        if not values["identity"] and values["split"] != "train":
            raise DataError(f"{where}: a {values['split']} image needs its identity; only train images may go without")
        identity = int(values["identity"]) if values["identity"] else None
        camera = int(values["camera"]) if values["camera"] else UNKNOWN_CAMERA
        tracklet = int(values["tracklet"]) if values["tracklet"] else UNKNOWN_TRACKLET
        item = Item(folders.inside(values["path"], where), identity, camera, tracklet)
        return Row(item, Modality(values["modality"]), values["split"])

    def _check_repeats(self, rows: Sequence[Row]) -> None:
        """An image may be query and gallery, but not listed twice for one use, nor train and test, nor with two descriptions."""
        seen: dict[str, list[Row]] = {}
        for row in rows:
            for other in seen.get(row.item.name, ()):
                if row.split == other.split:
                    raise DataError(f"{self._file}: {row.item.name} is listed twice as {row.split}")
                if "train" in {row.split, other.split}:
                    raise DataError(
                        f"{self._file}: {row.item.name} is listed as {other.split} and as {row.split}; keep one"
                    )
                if replace(row, split=other.split) != other:
                    raise DataError(f"{self._file}: {row.item.name} is described in two ways")
            seen.setdefault(row.item.name, []).append(row)

    def _check_tracklets(self, rows: Sequence[Row]) -> None:
        """A tracklet is of one camera: numbers that restart at each camera would join different people."""
        cameras: dict[tuple[Modality, int], int] = {}
        for row in rows:
            item = row.item
            known = cameras.setdefault((row.modality, item.tracklet), item.camera)
            if item.tracklet != UNKNOWN_TRACKLET and known != item.camera:
                raise DataError(
                    f"{self._file}: {row.modality} tracklet {item.tracklet} has images of two cameras, {item.name} among "
                    "them; give each tracklet of a modality a number of its own"
                )

    def _part(self, modality: Modality, splits: Sequence[str]) -> Part:
        items = dict.fromkeys(row.item for row in self._rows if row.modality is modality and row.split in splits)
        return files(self._folder, list(items))

    def _places(self, modality: Modality, split: str) -> torch.Tensor:
        """Rows of ``test()[modality]`` that a split lists."""
        wanted = {row.item.name for row in self._rows if row.modality is modality and row.split == split}
        places = [place for place, item in enumerate(self.testing[modality].items) if item.name in wanted]
        return torch.tensor(places, dtype=torch.int64)
