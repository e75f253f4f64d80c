"""Write a dataset's pictures as a tree in one of the layouts that the loaders read, so that every loader can be tried on files."""

from __future__ import annotations

import csv
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from reidassoc.data.images import decoder_threads
from reidassoc.errors import DataError, nearest_name
from reidassoc.interfaces.plugins import Dataset
from reidassoc.types import Modality, Pair, Records

JPEG_QUALITY = 100
REGDB_SPLITS = 10
SYSU_TRIALS = 10
SYSU_CAMERAS = Pair((1, 2, 4, 5), (3, 6))
LLCM_CAMERAS = Pair((1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 4, 5, 6, 7, 8, 9))


@dataclass(frozen=True)
class Picture:
    """One image to be written. ``identity`` is unique over both splits, from 1."""

    split: str
    modality: Modality
    identity: int
    camera: int
    records: Records
    row: int


@dataclass(frozen=True)
class Tree:
    """Where pictures go, and the lists that the layout needs with them: text, or a MATLAB table."""

    pictures: Mapping[str, Picture]
    lists: Mapping[str, str]
    permutations: Mapping[str, Sequence[Mapping[int, int]]]


def export(dataset: Dataset, out: Path, *, layout: str, jpeg: bool = False) -> int:
    """Write all images of a dataset below ``out`` and return how many there are.

    The tree is made next to ``out`` and moved into place when it is complete. PNG keeps every pixel; ``jpeg`` is
    lossy. Cameras keep their numbers where the layout has them, else they are renumbered in order.

    Args:
        dataset: with known identities.
        out: folder to make; it may exist if it is empty.
        layout: ``sysu_mm01``, ``regdb``, ``llcm`` or ``manifest``.
        jpeg: write JPEG of quality 100, colours at full resolution, instead of PNG.

    Raises:
        DataError: the layout is unknown, ``out`` is not empty or can't be written, identities are unknown, or there
            are more cameras than the layout has.
    """
    if layout not in LAYOUTS:
        raise DataError(f"no layout '{layout}'{nearest_name(layout, LAYOUTS)}; layouts: {', '.join(LAYOUTS)}")
    out = Path(out).expanduser().absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is there already and is not an empty folder; name a new one")
    tree = LAYOUTS[layout](pictures_of(dataset), "jpg" if jpeg else "png")
    making = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        making.mkdir(parents=True)
        write(tree, making)
        if out.exists():
            out.rmdir()
        making.rename(out)
    except OSError as error:
        raise DataError(f"can't write {out}: {error}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return len(tree.pictures)


def pictures_of(dataset: Dataset) -> list[Picture]:
    """All images, training first, in dataset order."""
    splits = {"train": dataset.train(), "test": dataset.test()}
    identities: dict[tuple[str, Modality], list[int]] = {}
    for split, sides in splits.items():
        for modality in Modality:
            known = dataset.identity(sides[modality])
            if known is None or bool((known < 0).any()):
                raise DataError(
                    f"the {modality} {split} images have no known identities; a tree can't be laid out without them"
                )
            identities[split, modality] = known.tolist()
    used = {split: {i for m in Modality for i in identities[split, m]} for split in splits}
    # Training and test people may be numbered independently (RegDB): then the test people are numbered on.
    shift = {"train": 1 - min(min(used["train"], default=1), 1), "test": 1 - min(min(used["test"], default=1), 1)}
    if {i + shift["train"] for i in used["train"]} & {i + shift["test"] for i in used["test"]}:
        shift["test"] = shift["train"] + max(used["train"]) + 1 - min(used["test"])
    return [
        Picture(split, modality, identity + shift[split], camera, sides[modality], row)
        for split, sides in splits.items()
        for modality in Modality
        for row, (identity, camera) in enumerate(
            zip(identities[split, modality], sides[modality].camera.tolist(), strict=True)
        )
    ]


def write(tree: Tree, folder: Path) -> None:
    def save(entry: tuple[str, Picture]) -> None:
        path, picture = folder / entry[0], entry[1]
        image = Image.fromarray(picture.records.source.load(picture.row))
        if path.suffix == ".jpg":
            image.save(path, quality=JPEG_QUALITY, subsampling=0)  # colour at full resolution: 4:4:4
        else:
            image.save(path)

    for parent in sorted({(folder / name).parent for name in (*tree.pictures, *tree.lists, *tree.permutations)}):
        parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(decoder_threads()) as pool:
        for _ in pool.map(save, tree.pictures.items()):
            pass
    for name, text in tree.lists.items():
        (folder / name).write_text(text, encoding="utf-8", newline="")
    for name, counts in tree.permutations.items():
        savemat(folder / name, {"rand_perm_cam": permutations(counts)})


def renumbered(pictures: Iterable[Picture], allowed: Pair[tuple[int, ...]]) -> dict[tuple[Modality, int], int]:
    """The layout's camera for each camera of the dataset."""
    seen = {(picture.modality, picture.camera) for picture in pictures}
    if any(camera < 0 for _, camera in seen):
        raise DataError("some images are of unknown camera, which this layout can't say; use layout manifest")
    table: dict[tuple[Modality, int], int] = {}
    for modality in Modality:
        cameras = sorted(camera for m, camera in seen if m is modality)
        if set(cameras) <= set(allowed[modality]):
            table |= {(modality, camera): camera for camera in cameras}
        elif len(cameras) <= len(allowed[modality]):
            table |= {(modality, camera): allowed[modality][i] for i, camera in enumerate(cameras)}
        else:
            raise DataError(
                f"{len(cameras)} {modality} cameras, but the layout has {len(allowed[modality])}; use layout manifest"
            )
    return table


def by_camera(pictures: Sequence[Picture], suffix: str, allowed: Pair[tuple[int, ...]]) -> dict[str, Picture]:
    """Pictures by ``cam{camera}/{identity:04d}/{frame:04d}``, frames counted from 1."""
    camera = renumbered(pictures, allowed)
    frames: Counter[tuple[Modality, int, int]] = Counter()
    named = {}
    for picture in pictures:
        place = (picture.modality, camera[picture.modality, picture.camera], picture.identity)
        frames[place] += 1
        named[f"cam{place[1]}/{picture.identity:04d}/{frames[place]:04d}.{suffix}"] = picture
    return named


def people(pictures: Iterable[Picture], split: str) -> list[int]:
    return sorted({picture.identity for picture in pictures if picture.split == split})


def sysu_mm01(pictures: Sequence[Picture], suffix: str) -> Tree:
    """A quarter of the training people is listed as ``val``: loaders train on both lists."""
    named = by_camera(pictures, suffix, SYSU_CAMERAS)
    train, test = people(pictures, "train"), people(pictures, "test")
    cut = len(train) - len(train) // 4
    ids = {"train": train[:cut], "val": train[cut:] or train[-1:], "test": test}
    lists = {f"exp/{use}_id.txt": ",".join(map(str, numbers)) + "\n" for use, numbers in ids.items()}
    counts: list[dict[int, int]] = [{} for _ in range(6)]
    for name, picture in named.items():
        table = counts[int(name[3]) - 1]
        table[picture.identity] = table.get(picture.identity, 0) + 1
    return Tree(named, lists, {"exp/rand_perm_cam.mat": counts})


def permutations(counts: Sequence[Mapping[int, int]]) -> np.ndarray[tuple[int, int], np.dtype[np.object_]]:
    """One cell per camera, in it one entry per identity: (trials, images) permutations from 1, each from a seed."""
    last = max(max(table, default=0) for table in counts)
    cells = np.empty((len(counts), 1), dtype=object)
    for camera, table in enumerate(counts):
        entries = np.empty((last, 1), dtype=object)
        for identity in range(1, last + 1):
            draw = random.Random(camera * 1_000_003 + identity)
            places = range(1, table.get(identity, 0) + 1)
            orders = [draw.sample(places, len(places)) for _ in range(SYSU_TRIALS)] if places else np.zeros((0, 0))
            entries[identity - 1, 0] = np.array(orders, dtype=np.uint16)
        cells[camera, 0] = entries
    return cells


def regdb(pictures: Sequence[Picture], suffix: str) -> Tree:
    """Split 1 is the dataset's own division of the people; splits 2 to 10 are drawn with their number as the seed."""
    folder, short = Pair("Visible", "Thermal"), Pair("v", "t")
    frames: Counter[tuple[Modality, int]] = Counter()
    named = {}
    for picture in pictures:
        frames[picture.modality, picture.identity] += 1
        frame = f"{short[picture.modality]}_{frames[picture.modality, picture.identity]:05d}.{suffix}"
        named[f"{folder[picture.modality]}/{picture.identity}/{frame}"] = picture
    train, test = people(pictures, "train"), people(pictures, "test")
    lists = {}
    for split in range(1, REGDB_SPLITS + 1):
        mixed = train + test
        if split > 1:
            random.Random(split).shuffle(mixed)
        for use, chosen in {"train": mixed[: len(train)], "test": mixed[len(train) :]}.items():
            label = {identity: number for number, identity in enumerate(sorted(chosen))}
            for modality in Modality:
                lines = [
                    f"{name} {label[picture.identity]}\n"
                    for name, picture in named.items()
                    if picture.modality is modality and picture.identity in label
                ]
                lists[f"idx/{use}_{folder[modality].lower()}_{split}.txt"] = "".join(lines)
    return Tree(named, lists, {})


def llcm(pictures: Sequence[Picture], suffix: str) -> Tree:
    short = Pair("vis", "nir")
    camera = renumbered(pictures, LLCM_CAMERAS)
    train, test = people(pictures, "train"), people(pictures, "test")
    label = {identity: number for number, identity in enumerate(train)}
    frames: Counter[tuple[Modality, int, int]] = Counter()
    named: dict[str, Picture] = {}
    lists = {"idx/test_id.txt": ",".join(map(str, test)) + "\n"}
    lists |= {f"idx/train_{short[modality]}.txt": "" for modality in Modality}
    for picture in pictures:
        modality, number = picture.modality, camera[picture.modality, picture.camera]
        frames[modality, number, picture.identity] += 1
        file = f"{picture.identity:04d}_c{number:02d}_f{frames[modality, number, picture.identity]:05d}_{short[modality]}.{suffix}"
        if picture.split == "test":
            named[f"test_{short[modality]}/cam{number}/{picture.identity:04d}/{file}"] = picture
        else:
            name = f"{short[modality]}/{picture.identity:04d}/{file}"
            named[name] = picture
            lists[f"idx/train_{short[modality]}.txt"] += f"{name} {label[picture.identity]}\n"
    return Tree(named, lists, {})


def manifest(pictures: Sequence[Picture], suffix: str) -> Tree:
    """Test images are listed as query and as gallery, so that both directions are evaluated."""
    frames: Counter[tuple[Modality, int, int]] = Counter()
    named: dict[str, Picture] = {}
    for picture in pictures:
        place = (picture.modality, picture.camera, picture.identity)
        frames[place] += 1
        folder = f"cam{picture.camera}" if picture.camera >= 0 else "cam"
        named[f"{picture.modality}/{folder}/{picture.identity:04d}/{frames[place]:04d}.{suffix}"] = picture
    table: list[list[str]] = [["path", "modality", "identity", "camera", "split"]]
    for name, picture in named.items():
        camera = str(picture.camera) if picture.camera >= 0 else ""
        for split in ("train",) if picture.split == "train" else ("query", "gallery"):
            table.append([name, str(picture.modality), str(picture.identity), camera, split])
    return Tree(named, {"manifest.csv": csv_text(table)}, {})


def csv_text(table: Sequence[Sequence[str]]) -> str:
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


LAYOUTS: Mapping[str, Callable[[Sequence[Picture], str], Tree]] = {
    "sysu_mm01": sysu_mm01,
    "regdb": regdb,
    "llcm": llcm,
    "manifest": manifest,
}
