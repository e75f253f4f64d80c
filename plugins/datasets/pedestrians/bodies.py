"""The body of a pedestrian in ticks of the canvas: its measures, limbs, torso and clothes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from reidassoc_plugins.datasets.pedestrians.people import (
    BELT,
    HOSE,
    INNER,
    LOWER,
    LOWER_2,
    SCARF,
    SHOES,
    SKIN,
    TOP,
    Person,
    Pose,
)
from reidassoc_plugins.datasets.pedestrians.raster import ONE, Canvas, Point, capsule, cosine, ellipse, root, sine


@dataclass(kw_only=True)
class Body:
    """One person in one pose on one canvas: where each point of the body is, and the parts from the neck down.

    A side is +1 for the person's left, which is on the right of a picture in which they face the camera, and -1 for the right.
    """

    person: Person
    pose: Pose
    canvas: Canvas
    hand: Point = (0, 0)  # where the hand on the bag's side came to be

    def __post_init__(self) -> None:
        """The heights and the cloth that several parts share."""
        person = self.person
        self.neck = self.length(person.head + 12)
        self.shoulder = self.length(person.head + 48)
        self.crotch = self.length(1000 - person.leg)
        self.belt_line = self.crotch - self.length(62)
        self.cloth = replace(
            person.cloth, origin=self.place(0, self.shoulder), squeeze=max(400, abs(cosine(self.pose.yaw)))
        )

    def length(self, thousandths: int) -> int:
        """Thousandths of the stature in ticks, downwards."""
        return thousandths * self.person.stature * self.pose.scale // 1_000_000

    def breadth(self, thousandths: int) -> int:
        """Thousandths of the stature in ticks, across."""
        return self.length(thousandths) * self.pose.breadth // 1000

    def place(self, across: int, down: int, ahead: int = 0) -> Point:
        """Where a point of the body (ticks: to its left, below its crown, before it) is in the picture."""
        turned = (across * cosine(self.pose.yaw) + ahead * sine(self.pose.yaw)) // ONE
        lean = self.pose.lean * (self.length(500) - down) // max(1, self.length(500))
        return self.pose.middle + turned + lean, self.pose.crown + down + ahead * 60 // 1000

    def half(self, thousandths: int) -> int:
        """Half the width that a part of the body shows: an ellipse seen from the side is as wide as it is deep."""
        wide = self.breadth(thousandths)
        deep = wide * self.person.depth // 1000
        across, ahead = wide * cosine(self.pose.yaw) // ONE, deep * sine(self.pose.yaw) // ONE
        return root(max(1, across * across + ahead * ahead))

    def level(self, down: int, half: int) -> tuple[Point, Point]:
        """The left and right end of a level cut through the body."""
        x, y = self.place(0, down)
        return (x - half, y), (x + half, y)

    def _phase(self, side: int) -> int:
        """Degrees of the gait cycle of one side: the legs are half a cycle apart."""
        return self.pose.phase + (0 if side > 0 else 180)

    def _gait(self, side: int) -> int:
        """Thigh angle of one side, forwards positive."""
        return self.person.stride * sine(self._phase(side)) // ONE

    def _leg(self, side: int) -> None:
        person = self.person
        thigh = self._gait(side)
        bend = max(0, person.stride * cosine(self._phase(side)) // ONE)
        hip_x = side * self.breadth(person.hips) * 48 // 100
        upper = (self.length(1000) - self.crotch) * 50 // 100
        lower = (self.length(965) - self.crotch) - upper
        knee_y, knee_z = self.crotch + upper * cosine(thigh) // ONE, upper * sine(thigh) // ONE
        shin = thigh - bend
        foot_y, foot_z = knee_y + lower * cosine(shin) // ONE, knee_z + lower * sine(shin) // ONE
        hip = self.place(hip_x, self.crotch)
        knee, ankle = self.place(hip_x * 9 // 10, knee_y, knee_z), self.place(hip_x * 8 // 10, foot_y, foot_z)
        wide, slim = self.breadth(person.thigh), self.breadth(person.thigh * 62 // 100)
        thin = self.breadth(person.thigh * 44 // 100)
        bare = HOSE if person.lower == "skirt" and person.belt else SKIN
        covered = person.lower_length if person.lower != "skirt" else 0
        toe = self.place(hip_x * 8 // 10 + side * self.breadth(10), foot_y + self.length(18), foot_z + self.length(52))
        self.canvas.paint(capsule(knee, ankle, slim, thin), bare)
        self.canvas.paint(capsule((ankle[0], ankle[1] + self.length(8)), toe, thin, self.breadth(20)), SHOES)
        if person.boots > 100:
            cuff = self._between(ankle, knee, person.boots)
            self.canvas.paint(capsule(ankle, cuff, thin * 11 // 10, slim), SHOES)
        if covered > 500:
            end = self._between(knee, ankle, 2 * covered - 1000)
            loose = thin + (slim - thin // 2) * max(0, person.lower_flare) // 520
            self.canvas.paint(capsule(knee, end, slim * 11 // 10, loose), LOWER)
        self.canvas.paint(capsule(hip, knee, wide, slim), LOWER if covered >= 500 else bare)
        if 0 < covered < 500:
            end = self._between(hip, knee, 2 * covered)
            loose = wide * (1000 + max(0, person.lower_flare) // 2) // 1000
            self.canvas.paint(
                [(hip[0] - wide, hip[1]), (hip[0] + wide, hip[1]), (end[0] + loose, end[1]), (end[0] - loose, end[1])],
                LOWER,
            )
        if person.lower_stripe and covered >= 500:
            rim = side * slim * 55 // 100
            self.canvas.paint(
                capsule((hip[0] + rim, hip[1]), (knee[0] + rim, knee[1]), thin // 3, thin // 3), LOWER_2, flat=True
            )
            self.canvas.paint(
                capsule((knee[0] + rim, knee[1]), (ankle[0] + rim // 2, ankle[1]), thin // 3, thin // 3),
                LOWER_2,
                flat=True,
            )

    @staticmethod
    def _between(start: Point, end: Point, thousandths: int) -> Point:
        return (
            start[0] + (end[0] - start[0]) * thousandths // 1000,
            start[1] + (end[1] - start[1]) * thousandths // 1000,
        )

    def _skirt(self) -> None:
        person = self.person
        down = self.crotch + (self.length(1000) - self.crotch) * person.lower_length // 1000
        sweep = self.length(1000 - person.leg) * abs(sine(self._gait(1))) // ONE // 4
        hem = self.half(person.hips) * (1050 + person.lower_flare) // 1000 + sweep
        left, right = self.level(self.belt_line, self.half(person.waist))
        low_left, low_right = self.level(down, hem)
        mid_left, mid_right = self.level(self.crotch, self.half(person.hips) * 104 // 100)
        self.canvas.paint([left, right, mid_right, mid_left], LOWER)
        self.canvas.paint([mid_left, mid_right, low_right, low_left], LOWER)
        if person.lower_stripe:
            band = self.length(28)
            self.canvas.paint(
                [(low_left[0], low_left[1] - band), (low_right[0], low_right[1] - band), low_right, low_left], LOWER_2
            )

    def _torso(self) -> None:
        person, paint = self.person, self.canvas.paint
        shoulder, waist, hips = self.half(person.shoulders), self.half(person.waist), self.half(person.hips)
        slope = self.length(18)
        middle = (self.shoulder * 45 + self.belt_line * 55) // 100
        if person.hem < 20:
            left, right = self.level(self.belt_line, waist)
            low_left, low_right = self.level(self.crotch + self.length(20), hips)
            paint([left, right, low_right, low_left], LOWER)
        neck_left, neck_right = self.level(self.neck, self.breadth(27))
        base_left, base_right = self.level(self.shoulder, self.breadth(34))
        paint([neck_left, neck_right, base_right, base_left], SKIN)
        collar_left, collar_right = self.level(self.shoulder - slope, self.breadth(42))
        end_left, end_right = self.level(self.shoulder + slope, shoulder)
        waist_left, waist_right = self.level(middle, waist)
        paint([collar_left, collar_right, end_right, end_left], TOP, cloth=self.cloth)
        paint([end_left, end_right, waist_right, waist_left], TOP, cloth=self.cloth)
        hem = self.crotch + self.length(person.hem)
        reach = max(0, hem - middle) * 1000 // max(1, self.crotch - middle)
        wide = waist + (hips - waist) * min(reach, 1000) // 1000
        wide = wide * (1000 + max(-40, person.flare) * reach // 1000) // 1000
        hem_left, hem_right = self.level(hem, wide)
        paint([waist_left, waist_right, hem_right, hem_left], TOP, cloth=self.cloth)
        if person.front != "closed":
            x, y = self.place(0, self.shoulder - slope, waist * 7 // 10)
            low_x, low_y = self.place(0, hem, waist * 7 // 10)
            gap = self.breadth(34 if person.front == "open" else 6) * max(500, abs(cosine(self.pose.yaw))) // ONE
            paint(
                [(x - gap * 3 // 4, y), (x + gap * 3 // 4, y), (low_x + gap, low_y), (low_x - gap, low_y)],
                INNER,
                flat=True,
            )
        if person.belt and person.lower != "skirt":
            band = self.length(9)
            line = self.belt_line if person.hem < 20 else middle + self.length(20)
            left, right = self.level(line, waist * 104 // 100)
            paint(
                [
                    (left[0], left[1] - band),
                    (right[0], right[1] - band),
                    (right[0], right[1] + band),
                    (left[0], left[1] + band),
                ],
                BELT,
            )
        if person.scarf:
            paint(ellipse(self.place(0, self.shoulder - slope), self.breadth(58), self.length(24)), SCARF)
            paint(
                capsule(
                    self.place(self.breadth(20), self.shoulder),
                    self.place(self.breadth(26), middle),
                    self.breadth(15),
                    self.breadth(18),
                ),
                SCARF,
            )

    def _arm(self, side: int) -> None:
        person = self.person
        habit = person.left_arm if side > 0 else person.right_arm
        swing = -self.pose.swing * sine(self._phase(side)) // ONE  # against the leg's
        bend = {"swing": 12 + max(0, swing) // 2, "pocket": 40, "phone": 115, "strap": 140}[habit]
        if habit != "swing":
            swing = swing // 4 + {"pocket": -24, "phone": 22, "strap": 8}[habit]
        out = self.pose.abduct + (14 if habit == "pocket" else 0)
        upper, lower = self.length(175), self.length(165)
        x = side * (self.breadth(person.shoulders) - self.breadth(person.arm) // 2)
        y = self.shoulder + self.length(26)
        elbow_x = x + side * upper * sine(out) // ONE
        elbow_y, elbow_z = y + upper * cosine(swing) // ONE, upper * sine(swing) // ONE
        fold = swing + bend
        inward = {"swing": 0, "pocket": -160, "phone": -220, "strap": -120}[habit] * lower // 1000
        hand_x = elbow_x + side * inward
        hand_y, hand_z = elbow_y + lower * cosine(fold) // ONE, elbow_z + lower * sine(fold) // ONE
        joint, elbow = self.place(x, y), self.place(elbow_x, elbow_y, elbow_z)
        hand = self.place(hand_x, hand_y, hand_z)
        if side == person.bag_side:
            self.hand = hand
        thick = self.breadth(person.arm)
        elbow_radius, wrist_radius = thick * 82 // 100, thick * 64 // 100
        paint = self.canvas.paint
        cloth = self.cloth if self.cloth.kind in ("bars", "checks", "dots") else None
        cover = person.sleeve
        if habit != "pocket":
            paint(ellipse(hand, wrist_radius * 11 // 10, wrist_radius * 13 // 10), SKIN)
        paint(
            capsule(elbow, hand, elbow_radius, wrist_radius),
            TOP if cover >= 1000 else SKIN,
            cloth=cloth if cover >= 1000 else None,
        )
        if 500 < cover < 1000:
            paint(
                capsule(elbow, self._between(elbow, hand, 2 * cover - 1000), elbow_radius * 11 // 10, elbow_radius),
                TOP,
                cloth=cloth,
            )
        paint(
            capsule(joint, elbow, thick, elbow_radius),
            TOP if cover > 500 else SKIN,
            cloth=cloth if cover > 500 else None,
        )
        if 0 < cover <= 500:
            paint(
                capsule(joint, self._between(joint, elbow, 2 * cover), thick * 12 // 10, thick * 12 // 10),
                TOP,
                cloth=cloth,
            )
