"""The parameters of a pedestrian and of a pose.

Shape (proportions, hair, sleeves, hems, bags, prints, gait) shows in both modalities. Colour shows in visible light only; in
infrared each garment has an albedo of its own that has nothing to do with its colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from reidassoc_plugins.datasets.pedestrians.raster import TALL, WIDE, Print

# Materials: a canvas contains TONES * material + tone. A material that may carry a print is followed by its second colour.
(WALL, FLOOR, FIXTURE, FIXTURE_2, CAST, OBSTACLE, SKIN, HAIR, HAT, TOP, TOP_2, INNER, LOWER, LOWER_2, HOSE, SHOES, BAG, STRAP,
 SCARF, BELT, EYES) = range(21)  # fmt: skip
MATERIALS = 21

Colour = tuple[int, int, int]
Item = TypeVar("Item")

CLOTHS: tuple[Colour, ...] = (
    (34, 36, 42), (58, 60, 66), (112, 114, 118), (176, 176, 174), (226, 226, 222), (38, 52, 92), (52, 88, 150), (120, 160, 200),
    (150, 40, 44), (196, 74, 60), (90, 34, 52), (46, 96, 60), (92, 100, 58), (54, 128, 128), (196, 164, 64), (212, 122, 48),
    (128, 92, 64), (190, 168, 134), (206, 136, 160), (112, 76, 140),
)  # fmt: skip
SKINS: tuple[Colour, ...] = ((224, 186, 158), (206, 162, 132), (176, 128, 98), (134, 94, 70), (98, 68, 52))
HAIRS: tuple[Colour, ...] = ((28, 24, 24), (44, 34, 30), (78, 54, 38), (128, 96, 60), (168, 140, 96), (120, 118, 116))


def pick(random: Random, items: Sequence[Item]) -> Item:
    """One of the items; `random.choice` without its dependence on the Python version."""
    return items[random.randrange(len(items))]


def spread(random: Random, width: int) -> int:
    """A whole number in [-width, width], small ones more often (the sum of two uniform ones)."""
    half = max(0, width) // 2
    return random.randint(-half, half) + random.randint(-half, half)


def luma(colour: Colour) -> int:
    """Brightness of a colour by ITU-R BT.601, in whole numbers."""
    return (299 * colour[0] + 587 * colour[1] + 114 * colour[2]) // 1000


@dataclass(frozen=True, kw_only=True)
class Person:
    """One identity. Lengths are thousandths of the stature unless they say otherwise; `of(seed, identity)` draws one."""

    stature: int  # ticks
    shoulders: int  # half-width
    waist: int  # half-width
    hips: int  # half-width
    depth: int  # front to back, thousandths of the width
    head: int  # height of the head
    leg: int  # length of the legs
    arm: int  # radius of the upper arm
    thigh: int  # radius
    hair: str  # bald, short, bob, long, tail, bun, curls
    hat: str  # none, cap, beanie, brim, hood
    sleeve: int  # thousandths of the arm; 0 is none, above 500 covers the elbow
    hem: int  # the top's lower edge, below the crotch if positive
    flare: int  # how much the hem is wider than the hips, thousandths of the hips
    front: str  # closed, open, zip
    cloth: Print
    lower: str  # trousers, shorts, skirt
    lower_length: int  # thousandths of the leg
    lower_flare: int  # thousandths of the hips
    lower_stripe: bool
    boots: int  # height of the shoe, thousandths of the shin
    bag: str  # none, backpack, shoulder, cross, hand, tote, case
    bag_side: int  # +1, -1
    bag_size: int
    scarf: bool
    belt: bool
    left_arm: str  # swing, pocket, phone, strap
    right_arm: str
    phase: int  # degrees of the gait cycle this person was caught in
    stride: int  # degrees of swing
    colour: tuple[Colour, ...]  # per material
    albedo: tuple[int, ...]  # per material, 0 to 255

    @classmethod
    def of(cls, seed: int, identity: int) -> Person:
        """The person with this number in the world with this seed."""
        random = Random(f"{seed}/person/{identity}")
        slight = random.randint(0, 1000)
        shoulders = 96 + 50 * slight // 1000 + spread(random, 14)
        lower = pick(random, ("trousers", "trousers", "trousers", "shorts", "skirt", "skirt"))
        length = {"trousers": (930, 1000), "shorts": (250, 560), "skirt": (300, 900)}[lower]
        kind = pick(
            random, ("plain", "plain", "bars", "bars", "poles", "checks", "block", "disc", "yoke", "sash", "dots")
        )
        period = random.randint(700, 1500)
        colours, albedos = cls._materials(random)
        return cls(
            stature=random.randint(13200, 14500),
            shoulders=shoulders,
            waist=random.randint(70, 118),
            hips=random.randint(82, 120),
            depth=random.randint(500, 760),
            head=random.randint(114, 146),
            leg=random.randint(420, 525),
            arm=random.randint(21, 39),
            thigh=random.randint(38, 64),
            hair=pick(random, ("bald", "short", "short", "bob", "long", "long", "tail", "bun", "curls")),
            hat=pick(random, ("none", "none", "none", "none", "cap", "beanie", "brim", "hood")),
            sleeve=pick(random, (0, 300, 380, 650, 1000, 1000, 1000)),
            hem=pick(random, (-60, -30, 0, 30, 70, 150, 230)) + random.randint(-12, 12),
            flare=random.randint(-80, 260),
            front=pick(random, ("closed", "closed", "closed", "open", "open", "zip")),
            cloth=Print(kind=kind, period=period, duty=period * random.randint(30, 65) // 100),
            lower=lower,
            lower_length=random.randint(*length),
            lower_flare=random.randint(-50, 520),
            lower_stripe=random.randrange(3) == 0,
            boots=pick(random, (60, 60, 120, 300, 550)),
            bag=pick(random, ("none", "none", "backpack", "shoulder", "cross", "hand", "tote", "case")),
            bag_side=pick(random, (-1, 1)),
            bag_size=random.randint(60, 105),
            scarf=random.randrange(4) == 0,
            belt=random.randrange(3) == 0,
            left_arm=pick(random, ("swing", "swing", "swing", "pocket", "phone", "strap")),
            right_arm=pick(random, ("swing", "swing", "swing", "pocket", "phone", "strap")),
            phase=random.randrange(360),
            stride=random.randint(12, 32),
            colour=colours,
            albedo=albedos,
        )

    @staticmethod
    def _materials(random: Random) -> tuple[tuple[Colour, ...], tuple[int, ...]]:
        """Colour and infrared albedo per material, drawn apart. What touches differs enough in both to leave an edge."""
        colours: list[Colour] = [(0, 0, 0)] * MATERIALS
        albedos = [0] * MATERIALS

        def dye(material: int, other: int | None, least: int) -> None:
            """Dye a cloth; at least `least` grey levels away from the cloth next to it, in either modality."""
            for _ in range(40):
                red, green, blue = pick(random, CLOTHS)
                colours[material] = (red + spread(random, 16), green + spread(random, 16), blue + spread(random, 16))
                if other is None or abs(luma(colours[material]) - luma(colours[other])) >= least:
                    break
            for _ in range(40):
                albedos[material] = random.randint(30, 235)
                if other is None or abs(albedos[material] - albedos[other]) >= least:
                    break

        colours[SKIN], albedos[SKIN] = pick(random, SKINS), random.randint(165, 195)
        colours[HAIR], albedos[HAIR] = pick(random, HAIRS), random.randint(45, 120)
        colours[EYES], albedos[EYES] = (40, 32, 30), 60
        dye(TOP, None, 0)
        dye(TOP_2, TOP, 45)
        dye(INNER, TOP, 40)
        dye(LOWER, TOP, 30)
        dye(LOWER_2, LOWER, 45)
        dye(HOSE, LOWER, 40)
        dye(SHOES, LOWER, 25)
        dye(BAG, TOP, 40)
        dye(STRAP, TOP, 40)
        dye(SCARF, TOP, 40)
        dye(HAT, HAIR, 30)
        dye(BELT, LOWER, 40)
        return tuple(colours), tuple(albedos)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How a person stands in one picture. `of` draws one."""

    yaw: int  # 0 faces the camera, positive turns to the right
    phase: int  # degrees of the gait cycle
    swing: int  # degrees of arm swing
    abduct: int  # degrees the arms stand off
    lean: int  # ticks from hip to head
    nod: int  # ticks the head is turned aside
    middle: int  # where the body's axis is, ticks from the left
    crown: int  # where the top of the head is, ticks from the top
    scale: int  # thousandths of the natural size
    breadth: int  # thousandths of the natural width

    @classmethod
    def of(cls, random: Random, person: Person, *, yaw: int, zoom: int, drop: int, jitter: int) -> Pose:
        """A pose near the person's own, in a camera's view; `jitter` in thousandths is how far it may stray."""

        def stray(width: int) -> int:
            return spread(random, width * jitter // 1000)

        scale = zoom * (1000 + stray(90)) // 1000
        spare = TALL - person.stature * scale // 1000
        return cls(
            yaw=yaw + stray(50),
            phase=person.phase + stray(200),
            swing=person.stride + stray(24),
            abduct=10 + stray(16),
            lean=stray(700),
            nod=stray(360),
            middle=WIDE // 2 + stray(900),
            crown=spare * 45 // 100 + drop + stray(800),
            scale=scale,
            breadth=1000 + stray(160),
        )
