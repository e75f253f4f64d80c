"""The figure of a pedestrian, painted from its parameters and pose, back to front: a body, its head and what it carries."""

from __future__ import annotations

from dataclasses import dataclass

from reidassoc_plugins.datasets.pedestrians.bodies import Body
from reidassoc_plugins.datasets.pedestrians.people import BAG, EYES, HAIR, HAT, SKIN, STRAP, TOP
from reidassoc_plugins.datasets.pedestrians.raster import ONE, Point, box, capsule, cosine, ellipse, sine


@dataclass(kw_only=True)
class Figure(Body):
    """One person in one pose on one canvas: `draw` paints the parts back to front."""

    def draw(self) -> None:
        """Paint the whole figure."""
        person = self.person
        near = 1 if self.pose.yaw >= 0 else -1  # the side of the body that is nearer
        if person.hair in ("long", "tail"):
            self._mane()
        if person.bag == "backpack":
            self._pack()
        self._arm(-near)
        if person.bag in ("hand", "case") and person.bag_side != near:
            self._hand_bag()
        self._leg(-near)
        self._leg(near)
        if person.lower == "skirt":
            self._skirt()
        self._torso()
        self._straps()
        self._head()
        self._arm(near)
        if person.bag in ("hand", "case") and person.bag_side == near:
            self._hand_bag()

    def _face(self) -> tuple[Point, int, int]:
        """Centre and half-axes of the head."""
        x, y = self.place(0, self.length(self.person.head) // 2)
        return (
            (x + self.pose.nod // 3, y),
            self.breadth(self.person.head * 37 // 100),
            self.length(self.person.head) // 2,
        )

    def _mane(self) -> None:
        (x, y), wide, tall = self._face()
        if self.person.hair == "long":
            low = self.place(0, self.shoulder + self.length(60))[1]
            sweep = wide * 145 // 100
            self.canvas.paint([(x - wide, y), (x + wide, y), (x + sweep, low), (x - sweep, low)], HAIR)
        else:
            back = x - (sine(self.pose.yaw) * wide // ONE) * 12 // 10 + self.person.bag_side * wide // 2
            self.canvas.paint(
                capsule((back, y), (back + self.person.bag_side * wide // 2, y + 2 * tall), wide // 2, wide // 4), HAIR
            )

    def _head(self) -> None:
        person, paint = self.person, self.canvas.paint
        (x, y), wide, tall = self._face()
        ahead = wide * sine(self.pose.yaw) // ONE
        caps = {  # of the hair: percent of the head's width and height
            "bald": (0, 0),
            "short": (104, 100),
            "bob": (122, 104),
            "long": (116, 106),
            "tail": (106, 102),
            "bun": (106, 102),
            "curls": (150, 118),
        }
        across, down = caps[person.hair]
        if person.hair == "bun":
            paint(ellipse((x - ahead // 2, y - tall), wide * 6 // 10, tall * 4 // 10), HAIR)
        if across:
            lift = tall * (22 if person.hair == "curls" else 16) // 100
            paint(ellipse((x - ahead // 4, y - lift), wide * across // 100, tall * down // 100), HAIR)
        if person.hair in ("bob", "long"):
            side = wide * (128 if person.hair == "bob" else 118) // 100
            low = y + tall * (75 if person.hair == "bob" else 130) // 100
            paint(
                [
                    (x - ahead // 4 - wide, y - tall // 4),
                    (x - ahead // 4 + wide, y - tall // 4),
                    (x - ahead // 3 + side, low),
                    (x - ahead // 3 - side, low),
                ],
                HAIR,
            )
        face = wide * 86 // 100 if across else wide
        paint(ellipse((x + ahead // 4, y + tall * 12 // 100), face, tall * 86 // 100), SKIN)
        if across:
            paint(ellipse((x + ahead // 8, y - tall * 68 // 100), wide * 9 // 10, tall * 38 // 100), HAIR)
        for eye in (-1, 1):
            paint(
                ellipse((x + ahead // 2 + eye * wide * 36 // 100, y + tall // 12), wide // 9, tall // 14),
                EYES,
                flat=True,
            )
        paint(
            box(x + ahead // 2 - wide // 4, y + tall * 54 // 100, x + ahead // 2 + wide // 4, y + tall * 62 // 100),
            EYES,
            flat=True,
        )
        if person.hat == "cap":
            paint(ellipse((x, y - tall * 55 // 100), wide * 11 // 10, tall * 52 // 100), HAT)
            paint(
                box(
                    x - wide * 8 // 10 + ahead // 2,
                    y - tall * 36 // 100,
                    x + wide * 8 // 10 + ahead,
                    y - tall * 18 // 100,
                ),
                HAT,
            )
        elif person.hat == "beanie":
            paint(ellipse((x, y - tall * 62 // 100), wide * 114 // 100, tall * 62 // 100), HAT)
            paint(box(x - wide * 116 // 100, y - tall * 45 // 100, x + wide * 116 // 100, y - tall * 15 // 100), HAT)
        elif person.hat == "brim":
            paint(ellipse((x, y - tall * 60 // 100), wide, tall * 56 // 100), HAT)
            paint(ellipse((x, y - tall * 34 // 100), wide * 185 // 100, tall * 18 // 100), HAT)
        elif person.hat == "hood":
            crown = y - tall * 38 // 100
            paint([(x - wide * 125 // 100, crown), (x, y - tall * 118 // 100), (x + wide * 125 // 100, crown)], TOP)
            for side in (-1, 1):
                paint(
                    capsule(
                        (x + side * wide, y - tall // 2),
                        (x + side * wide * 12 // 10, y + tall),
                        wide * 3 // 10,
                        wide * 4 // 10,
                    ),
                    TOP,
                )

    def _pack(self) -> None:
        size, deep = self.breadth(self.person.bag_size), self.half(self.person.waist)
        x, y = self.place(0, self.shoulder, -deep * 13 // 10)
        wide = size * max(abs(cosine(self.pose.yaw)), 500) // ONE + size * 45 // 100
        corners = [
            (x - wide * 8 // 10, y - self.length(25)),
            (x + wide * 8 // 10, y - self.length(25)),
            (x + wide, y + self.length(60)),
            (x + wide, y + self.length(240)),
            (x - wide, y + self.length(240)),
            (x - wide, y + self.length(60)),
        ]
        self.canvas.paint(corners, BAG)

    def _straps(self) -> None:
        person, paint = self.person, self.canvas.paint
        shoulder, band = self.half(person.shoulders), self.breadth(13)
        side = person.bag_side
        if person.bag == "backpack":
            x, y = self.place(0, self.shoulder)
            for edge in (-1, 1):
                top = (x + edge * shoulder * 62 // 100, y - self.length(6))
                paint(
                    capsule(top, (x + edge * shoulder * 70 // 100, y + self.length(170)), band, band), STRAP, flat=True
                )
        elif person.bag in ("cross", "shoulder", "tote"):
            across = -side if person.bag == "cross" else side
            start_x, start_y = self.place(0, self.shoulder)
            start = (start_x + across * shoulder * 62 // 100, start_y - self.length(4))
            low = self.belt_line if person.bag != "shoulder" else (self.belt_line + self.shoulder) // 2
            end = self.place(side * self.breadth(person.hips) * 105 // 100, low)
            paint(capsule(start, end, band, band), STRAP, flat=True)
            size = self.breadth(person.bag_size)
            tall = size * (13 if person.bag == "tote" else 8) // 10
            paint(box(end[0] - size * 7 // 10, end[1], end[0] + size * 7 // 10, end[1] + 2 * tall), BAG)

    def _hand_bag(self) -> None:
        person, paint = self.person, self.canvas.paint
        x, y = self.hand
        size = self.breadth(person.bag_size)
        paint(capsule((x, y), (x, y + size // 2), self.breadth(9), self.breadth(9)), STRAP, flat=True)
        if person.bag == "hand":
            paint(
                [
                    (x - size * 6 // 10, y + size // 2),
                    (x + size * 6 // 10, y + size // 2),
                    (x + size * 8 // 10, y + size * 2),
                    (x - size * 8 // 10, y + size * 2),
                ],
                BAG,
            )
        else:
            paint(box(x - size * 11 // 10, y + size // 2, x + size * 11 // 10, y + size * 2), BAG)
