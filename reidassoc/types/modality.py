"""The two modalities, a value that exists once for each of them, and the streams in which training sees their images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Modality(str, Enum):
    """A camera's modality. Being a string, it is also the name of the label space of its own clusters."""

    VISIBLE = "visible"
    INFRARED = "infrared"

    @property
    def other(self) -> Modality:
        return Modality.INFRARED if self is Modality.VISIBLE else Modality.VISIBLE

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Pair(Generic[T]):
    """One value for each modality, so that visible and infrared are said once.

    >>> Pair(3, 4).map(lambda n: n * 2)
    Pair(visible=6, infrared=8)
    """

    visible: T
    infrared: T

    def __getitem__(self, modality: Modality | str) -> T:
        return self.visible if Modality(modality) is Modality.VISIBLE else self.infrared

    def __iter__(self) -> Iterator[T]:
        yield self.visible
        yield self.infrared

    @property
    def swapped(self) -> Pair[T]:
        """The pair with its modalities exchanged."""
        return Pair(self.infrared, self.visible)

    def map(self, fn: Callable[[T], U]) -> Pair[U]:
        return Pair(fn(self.visible), fn(self.infrared))

    @staticmethod
    def build(fn: Callable[[Modality], U]) -> Pair[U]:
        """Make a pair by calling ``fn`` with each modality, visible first."""
        return Pair(fn(Modality.VISIBLE), fn(Modality.INFRARED))


STREAMS: dict[str, Modality] = {
    "visible": Modality.VISIBLE,
    "augmented": Modality.VISIBLE,  # the visible images again, with one colour channel copied to all
    "infrared": Modality.INFRARED,
}
FEEDING_ORDER = ("infrared", "augmented", "visible")  # in which streams feed a bank, as in MULT's published code
FEEDERS: Pair[tuple[str, ...]] = Pair.build(  # the streams of each modality, in that order
    lambda modality: tuple(stream for stream in FEEDING_ORDER if STREAMS[stream] is modality)
)
