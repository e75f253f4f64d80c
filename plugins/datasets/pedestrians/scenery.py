"""Where a pedestrian is seen: cameras, the near-neutral scenes before them, and what their sensors make of the light.

A camera turns the material numbers of a canvas into grey levels or colours (`Camera.expose`). Backgrounds are nearly neutral
and low in contrast, and exposure, white balance, blur and noise vary by less than identities do: what a network finds first
is the person.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt

from reidassoc_plugins.datasets.galleries import INFRARED_CAMERAS
from reidassoc_plugins.datasets.pedestrians.people import (
    CAST,
    EYES,
    FIXTURE,
    FIXTURE_2,
    FLOOR,
    MATERIALS,
    OBSTACLE,
    SKIN,
    WALL,
    Person,
    luma,
    spread,
)
from reidassoc_plugins.datasets.pedestrians.raster import TALL, WIDE, Canvas, Index, box, ellipse

Picture = npt.NDArray[np.uint8]  # (height, width, 3) RGB
Light = npt.NDArray[np.int64]

TONE_GAIN = (800, 1000, 1130)  # thousandths: shade, plain, light
YAWS = {1: -22, 2: -6, 3: 14, 4: 4, 5: -14, 6: 22}  # degrees; spread out so that no view is shared


@dataclass(frozen=True, kw_only=True)
class Camera:
    """One camera: where it looks from, what stands behind, how its sensor answers. `of(seed, number)` draws one."""

    number: int
    infrared: bool
    yaw: int  # degrees by which people are turned to it
    zoom: int  # thousandths: how large its detector crops people
    drop: int  # ticks by which they are lower in its crops
    light: int  # side the light comes from: +1 right, -1 left
    gain: tuple[int, int, int]  # thousandths per channel: exposure times white balance
    black: int  # grey level of no light
    contrast: int  # thousandths of an s-curve mixed into the response
    fall_off: int  # thousandths by which one side is darker
    blur: int  # passes of a 1-2-1 filter at 64 rows
    noise: int  # standard deviation in grey levels
    scene: tuple[int, int, int, int]  # grey levels of wall, floor and two kinds of fixture
    tint: int  # grey levels between red and blue in the scene
    horizon: int  # ticks
    posts: tuple[tuple[int, int, int], ...]  # left edge, width (ticks), fixture kind
    tiles: int  # ticks between the lines on the floor

    @classmethod
    def of(cls, seed: int, number: int) -> Camera:
        """The camera with this number in the world with this seed."""
        random = Random(f"{seed}/camera/{number}")
        infrared = number in INFRARED_CAMERAS
        exposure = 1000 + spread(random, 120)
        warmth = 0 if infrared else spread(random, 60)
        wall = random.randint(84, 128) if infrared else random.randint(120, 162)
        floor = wall + (1 if random.randrange(2) else -1) * random.randint(8, 20)
        return cls(
            number=number,
            infrared=infrared,
            yaw=YAWS.get(number, random.randint(-35, 35)),
            zoom=random.randint(905, 935) if infrared else random.randint(980, 1020),
            drop=random.randint(250, 400) if infrared else random.randint(-100, 100),
            light=1 if random.randrange(2) else -1,
            gain=(exposure + warmth, exposure, exposure - warmth),
            black=random.randint(10, 24) if infrared else random.randint(0, 8),
            contrast=random.randint(0, 300),
            fall_off=random.randint(0, 120),
            blur=random.randint(1, 2) if infrared else random.randint(0, 1),
            noise=random.randint(3, 5) if infrared else random.randint(2, 5),
            scene=(wall, floor, wall - random.randint(7, 18), wall + random.randint(6, 16)),
            tint=spread(random, 8),
            horizon=random.randint(8600, 12200),
            posts=tuple(
                (random.randint(-600, WIDE), random.randint(300, 1500), random.randrange(2))
                for _ in range(random.randint(1, 3))
            ),
            tiles=random.randint(700, 1600),
        )

    def backdrop(self, canvas: Canvas, *, aside: int, up: int) -> None:
        """Paint the scene, moved by this many ticks: detections are cropped from a larger view."""
        horizon = self.horizon + up
        canvas.paint(box(0, 0, WIDE, TALL), WALL, flat=True)
        for left, width, kind in self.posts:
            canvas.paint(box(left + aside, 0, left + aside + width, horizon), FIXTURE + kind, flat=True)
        canvas.paint(box(0, horizon, WIDE, TALL), FLOOR, flat=True)
        for line in range(horizon + self.tiles, TALL, self.tiles):
            canvas.paint(box(0, line, WIDE, line + 120), FIXTURE, flat=True)
        canvas.paint(box(0, horizon - 160, WIDE, horizon + 60), FIXTURE_2, flat=True)

    def palette(self, person: Person, *, gap: int) -> Light:
        """What each number on a canvas looks like: (TONES * MATERIALS, channels) light; grey level 255 is 65 535.

        A bright cloth's light tone may be above: the exposure cuts it off. `gap` in thousandths.
        """
        wall, floor, dark, bright = self.scene
        greys = {
            WALL: wall,
            FLOOR: floor,
            FIXTURE: dark,
            FIXTURE_2: bright,
            CAST: floor * 88 // 100,
            OBSTACLE: wall * 92 // 100,
        }
        rows: list[tuple[int, ...]] = []
        for material in range(MATERIALS):
            if material in greys:
                grey = greys[material]
                colour = (grey,) if self.infrared else (grey + self.tint, grey, grey - self.tint)
            elif self.infrared:
                visible = luma(person.colour[material])
                own = gap if material not in (SKIN, EYES) else 1000
                colour = ((visible * (1000 - own) + person.albedo[material] * own) // 1000,)
            else:
                colour = person.colour[material]
            rows.extend(tuple(value * gain * 257 // 1000 for value in colour) for gain in TONE_GAIN)
        return np.array(rows, dtype=np.int64)

    def expose(self, drawn: Index, palette: Light, random: Random, *, samples: int, noise: int) -> Picture:
        """The finished picture: light averaged over each pixel, then optics, exposure, noise and response.

        `noise` in thousandths scales the sensor's. All in whole numbers.
        """
        height, width = drawn.shape[0] // samples, drawn.shape[1] // samples
        fine = palette.astype(np.int32)[drawn]
        across = fine[:, ::samples]
        for step in range(1, samples):
            across = across + fine[:, step::samples]
        light = across[::samples].copy()
        for step in range(1, samples):
            light += across[step::samples]
        light //= samples * samples
        # The blur grows with the picture, though less than in proportion: a finer sensor has the finer lens.
        for _ in range((self.blur * height + 32) // 64):
            light = _soften(_soften(light, 0), 1)
        exposure = 1000 + spread(random, 70)
        gain = (self.gain[1],) if self.infrared else self.gain
        ramp = 1000 - self.fall_off * np.arange(width, dtype=np.int64) // width
        ramp = ramp if self.light < 0 else ramp[::-1]
        seen = light.astype(np.int64) * np.array([g * exposure // 1000 for g in gain], dtype=np.int64) // 1000
        seen = seen * ramp[None, :, None] // 1000
        if noise and self.noise:
            # The sum of four bytes is nearly normal, with mean 510 and standard deviation 148.
            count = seen.size
            grains = np.frombuffer(random.randbytes(4 * count), dtype=np.uint8).reshape(4, count)
            grain = grains.sum(axis=0, dtype=np.int64).reshape(seen.shape) - 510
            seen = seen + grain * (self.noise * noise) * 257 // 148_000
        seen = np.clip(seen + self.black * 257, 0, 65535)
        # An s-curve, 3x^2 - 2x^3, mixed into the straight line.
        curve = seen * seen // 65535 * (3 * 65535 - 2 * seen) // 65535
        seen = (seen * (1000 - self.contrast) + curve * self.contrast) // 1000
        grey = (seen // 257).astype(np.uint8)
        return np.repeat(grey, 3, axis=2) if self.infrared else grey


def occlude(canvas: Canvas, random: Random, *, chance: int) -> None:
    """Paint something low in contrast in front of the person, in `chance` thousandths of all pictures."""
    hidden = random.randrange(1000) < chance
    side, reach, low = random.randrange(3), random.randint(500, 1700), random.randint(11500, 14000)
    if not hidden:
        return
    if side == 2:
        canvas.paint(box(0, low, WIDE, TALL), OBSTACLE, flat=True)
    else:
        left = 0 if side == 0 else WIDE - reach
        canvas.paint(box(left, 0, left + reach, TALL), OBSTACLE, flat=True)


def ground(canvas: Canvas, *, middle: int, foot: int) -> None:
    """Paint the soft patch of shade on the floor under a person's feet."""
    canvas.paint(ellipse((middle, foot), 1900, 330), CAST, flat=True)


def _soften(light: npt.NDArray[np.int32], axis: int) -> npt.NDArray[np.int32]:
    """One pass of a 1-2-1 filter along an axis; the rim is repeated."""
    before, after = light.copy(), light.copy()
    if axis == 0:
        before[1:], after[:-1] = light[:-1], light[1:]
    else:
        before[:, 1:], after[:, :-1] = light[:, :-1], light[:, 1:]
    softened: npt.NDArray[np.int32] = (before + 2 * light + after) // 4
    return softened
