"""Two datasets as one: joint training, tested on either."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice, product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

import reidassoc.registry as registry
from reidassoc.errors import DataError
from reidassoc.interfaces import Dataset
from reidassoc.registry.spec import Spec
from reidassoc.types import ImageSource, Pair, Records, Trial

PLACES = ("first", "second")


@dataclass(frozen=True, kw_only=True)
class Union(Dataset):
    """Train on the images of two datasets together, and test on one of them.

    ``union(first='sysu_mm01', second='regdb')``; options of either go into its spec: ``second='regdb(split=3)'``; either may be
    a union itself. Their folders are given together, in order, as in PATH: ``--data /data/SYSU-MM01:/data/RegDB`` (on Windows
    with ``;``); a dataset that is not kept on disk, or whose spec says its root, has none there. Nobody is in both: identities,
    cameras and tracklets of the second get numbers above the first one's, and names say which dataset they are of. The test
    set, its cameras and its protocols are those of ``tested``, unchanged.

    Raises:
        ValueError: a dataset is joined with itself, or there are not as many folders as datasets that need one.
    """

    first: Annotated[str, Field(description="spec of a dataset")]
    second: Annotated[str, Field(description="spec of another")]
    tested: Annotated[Literal["first", "second"], Field(description="whose test set and protocols")] = "first"
    root: Annotated[str, Field(description="their folders, joined as in PATH")] = ""

    paper: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for one, other in product(*(member.members() for member in self.pair)):
            apart = one != other if root_of(one) is None else root_of(one) != root_of(other)
            if type(one) is type(other) and not apart:
                holds = (
                    "hold one dataset" if any(isinstance(member, Union) for member in self.pair) else "are one dataset"
                )
                raise ValueError(f"{self.first} and {self.second} {holds}: people would train who are tested, or twice")

    @cached_property
    def pair(self) -> tuple[Dataset, Dataset]:
        """The first and the second dataset, each with its folder."""
        specs = [Spec.parse(text) for text in (self.first, self.second)]
        lacking = [rootless(spec) for spec in specs]
        names = [name for inner in lacking for name in inner]
        roots = [root for root in self.root.split(os.pathsep) if root]
        if len(roots) != len(names):
            shown = os.pathsep.join(f"/data/{name}" for name in names)
            wanted = f"{len(names)} (--data {shown})" if names else "none"
            raise ValueError(
                f"datasets kept on disk need a folder each, here {wanted}; got {len(roots)}: '{self.root}'"
            )
        unused = iter(roots)
        for number, inner in enumerate(lacking):
            if inner:
                specs[number] = specs[number].with_options(root=os.pathsep.join(islice(unused, len(inner))))
        one, other = (registry.build("datasets", spec) for spec in specs)
        return one, other

    def members(self) -> Sequence[Dataset]:
        return [inner for member in self.pair for inner in member.members()]

    def train(self) -> Pair[Records]:
        """Both training sets, the first one's images before the second one's."""
        both = [member.train() for member in self.pair]
        cameras = above(records.camera for records in both[0])
        return Pair.build(lambda m: joined([records[m] for records in both], cameras))

    def test(self) -> Pair[Records]:
        place = PLACES.index(self.tested)
        return self.pair[place].test().map(lambda records: replace(records, names=named(place, records)))

    def trials(self) -> Sequence[Trial]:
        return self.pair[PLACES.index(self.tested)].trials()

    def identity(self, records: Records) -> Tensor | None:
        """(N,) int64 true identities, the second dataset's above the first one's; None if one of them is unknown.

        Raises:
            DataError: an image is of neither dataset.
        """
        known = self._identities[records.modality]
        for name in records.names:
            if name not in known:
                raise DataError(
                    f"{name} is not a {records.modality} image of this union; give records of its train() or test()"
                )
        values = [known[name] for name in records.names]
        there = [value for value in values if value is not None]
        return torch.tensor(there, dtype=torch.int64) if len(there) == len(values) else None

    @cached_property
    def _identities(self) -> Pair[dict[str, int | None]]:
        found: Pair[dict[str, int | None]] = Pair({}, {})
        shift = 0
        for place, member in enumerate(self.pair):
            here = [(records, member.identity(records)) for records in readable(member)]
            for records, identity in here:
                values = [None] * len(records) if identity is None else shifted(identity, shift).tolist()
                found[records.modality].update(zip(named(place, records), values, strict=True))
            shift = above(identity for _, identity in here if identity is not None)
        return found

    def fingerprint(self) -> str:
        """16 hexadecimal digits: both fingerprints, and which one is tested."""
        text = "\n".join([*(member.fingerprint() for member in self.pair), self.tested])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def notes(self) -> Sequence[str]:
        notes = [f"{place}: {note}" for place, member in zip(PLACES, self.pair, strict=True) for note in member.notes()]
        with suppress(DataError):  # of a member that can't be read, which its own notes say
            one, other = ({inner.fingerprint() for inner in member.members()} for member in self.pair)
            if one & other:
                notes.append(
                    f"{self.first} and {self.second} hold copies of one dataset: people train who are tested, or twice"
                )
        return notes


class JoinedImages:
    """The pixels of several sources, one after the other."""

    def __init__(self, sources: Sequence[ImageSource]) -> None:
        self.sources = tuple(sources)
        self.ends = np.cumsum([len(source) for source in sources])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def load(self, row: int) -> npt.NDArray[np.uint8]:
        number = int(np.searchsorted(self.ends, row, side="right"))
        source = self.sources[number]
        return source.load(row - int(self.ends[number]) + len(source))

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(source.fingerprint() for source in self.sources).encode()).hexdigest()


def joined(both: Sequence[Records], cameras: int) -> Records:
    """One modality's training images: the second one's cameras shifted, its tracklets above the first one's."""
    one, other = both
    tracklets = above([one.tracklet])
    return Records(
        one.modality,
        torch.cat([one.camera, shifted(other.camera, cameras)]),
        tuple(name for place, records in enumerate(both) for name in named(place, records)),
        JoinedImages([records.source for records in both]),
        torch.cat([one.tracklet, shifted(other.tracklet, tracklets)]),
    )


def named(place: int, records: Records) -> tuple[str, ...]:
    return tuple(f"{PLACES[place]}/{name}" for name in records.names)


def shifted(numbers: Tensor, by: int) -> Tensor:
    """Numbers raised, but for those that say that nothing is known."""
    return torch.where(numbers < 0, numbers, numbers + by)


def above(columns: Iterable[Tensor]) -> int:
    """The first number that is larger than all, at least 0."""
    return max((int(column.max()) + 1 for column in columns if len(column)), default=0)


def readable(dataset: Dataset) -> Iterator[Records]:
    """The records of the splits that are there: a root may hold just one."""
    for split in (dataset.train, dataset.test):
        with suppress(DataError):
            yield from split()


def rootless(spec: Spec) -> list[str]:
    """Names of the datasets of a spec that are kept on disk, and of which it doesn't say where; a union's are those within."""
    cls: Any = registry.get("datasets", spec.name)
    if "root" in spec.options or "root" not in {field.name for field in fields(cls)}:
        return []
    if issubclass(cls, Union):
        inner = [
            spec.options[place] for place in PLACES if place in spec.options
        ]  # one that lacks is refused when it is made
        return [name for text in inner for name in rootless(Spec.parse(str(text)))]
    return [spec.name]


def root_of(dataset: Dataset) -> Path | None:
    root = getattr(dataset, "root", None)
    return None if root is None else Path(root).expanduser().resolve()
