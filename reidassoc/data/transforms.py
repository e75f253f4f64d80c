"""Training augmentation, batched on the device. What is random is drawn first, on the host, for the whole batch.

So the same seed gives the same pictures on CPU and CUDA. Source: the settings of the published methods, and for the
channel exchange Ye et al., Channel Augmented Joint Learning, ICCV 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reidassoc.recipe.model import Augmentation

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)  # ImageNet's
DEVIATION = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
ERASED = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)  # written after normalisation, as the published code does
GREY = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
FROM_YIQ = torch.linalg.inv(TO_YIQ)
ERASE_AREA = (0.02, 0.4)
ERASE_ASPECT = (0.3, 1 / 0.3)
ERASE_TRIES = 20
CACHED = 1 << 19  # values that fit a processor's cache: more are worked on piece by piece


def normalise(images: Tensor) -> Tensor:
    """Turn uint8 (B, 3, H, W) into float32 with ImageNet's mean and deviation removed."""
    mean, deviation = (on(images, constant) for constant in (MEAN, DEVIATION))
    return (images.float() / 255.0 - mean) / deviation


def on(x: Tensor, constant: Tensor) -> Tensor:
    """A constant where `x` is; the host doesn't wait for it."""
    return constant.to(x.device, non_blocking=True)


@dataclass(frozen=True)
class Draw:
    """The random choices for B images of one stream; every tensor has B rows, and None leaves all images as they are.

    Args:
        shift: (B, 2) int64 crop offset, 0 to 2 · pad.
        mirror: (B,) bool.
        channel: (B,) int64: 0, 1, 2 = that channel copied to all; −1 = as it is.
        grey: (B,) bool: the luminance instead.
        colour: (B, 4) float32 factors of brightness, contrast, saturation, and the hue's shift in turns.
        lit: (B, 4) int64 rectangle (top, left, height, width) of the intensity transform; height 0 = none.
        gain: (B, 3) float32 factor per channel within it.
        erased: (B, 4) int64 rectangle; height 0 = none.
    """

    shift: Tensor
    mirror: Tensor
    channel: Tensor | None
    grey: Tensor | None
    colour: Tensor | None
    lit: Tensor | None
    gain: Tensor
    erased: Tensor | None

    def to(self, device: torch.device) -> Draw:
        tensors = (getattr(self, name) for name in self.__dataclass_fields__)
        return Draw(*(None if tensor is None else tensor.to(device, non_blocking=True) for tensor in tensors))  # type: ignore[arg-type]

    def take(self, rows: slice) -> Draw:
        """The choices for some of the images."""
        tensors = (getattr(self, name) for name in self.__dataclass_fields__)
        return Draw(*(None if tensor is None else tensor[rows] for tensor in tensors))  # type: ignore[arg-type]


def draw(settings: Augmentation, stream: str, count: int, size: tuple[int, int], generator: torch.Generator) -> Draw:
    """Draw the choices for one stream of a batch, on the host."""

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    shift = torch.randint(0, 2 * settings.pad + 1, (count, 2), generator=generator)
    mirror = uniform(count) < settings.flip
    choice = torch.randint(0, 4, (count,), generator=generator)
    channel = grey = None
    if stream == "augmented":
        channel = choice % 3
    elif stream == "infrared":  # R, G, B with equal chance; in the fourth case grey with probability one half
        grey = (choice == 3) & (uniform(count) >= 0.5)
        channel = torch.where(choice == 3, -1, choice)
    strength = settings.jitter if stream != "visible" or settings.jitter_visible else 0.0
    colour = strength * (2 * uniform(count, 4) - 1) + torch.tensor([1.0, 1.0, 1.0, 0.0])
    lit = rectangles(count, size, settings.intensity, generator)
    gain = beta_half(uniform(count, 3))
    gain = gain / gain.amax(1, keepdim=True)
    erased = rectangles(count, size, settings.erase, generator)
    return Draw(
        shift,
        mirror,
        channel,
        grey,
        colour if strength else None,
        lit if settings.intensity else None,
        gain,
        erased if settings.erase else None,
    )


def beta_half(uniform: Tensor) -> Tensor:
    """Turn uniform numbers into Beta(½, ½) ones: its distribution function is 2/π · arcsin √x."""
    return torch.sin(uniform * math.pi / 2).square().clamp_min(1e-4)


def rectangles(count: int, size: tuple[int, int], chance: float, generator: torch.Generator) -> Tensor:
    """Draw (count, 4) random rectangles (top, left, height, width); height 0 where no rectangle is due or fits."""
    height, width = size
    area = (
        height
        * width
        * (ERASE_AREA[0] + (ERASE_AREA[1] - ERASE_AREA[0]) * torch.rand(count, ERASE_TRIES, generator=generator))
    )
    aspect = ERASE_ASPECT[0] + (ERASE_ASPECT[1] - ERASE_ASPECT[0]) * torch.rand(count, ERASE_TRIES, generator=generator)
    high, wide = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
    fits = (high < height) & (wide < width)
    first = fits.int().argmax(1, keepdim=True)
    high, wide = high.gather(1, first)[:, 0], wide.gather(1, first)[:, 0]
    wanted = (torch.rand(count, generator=generator) < chance) & fits.any(1)
    high, wide = torch.where(wanted, high, 0), torch.where(wanted, wide, 0)
    place = torch.rand(count, 2, generator=generator)
    top = (place[:, 0] * (height - high + 1)).long()
    left = (place[:, 1] * (width - wide + 1)).long()
    return torch.stack([top, left, high, wide], 1)


def augment(images: Tensor, chosen: Draw, pad: int) -> Tensor:
    """Apply the choices to uint8 images (B, 3, H, W); return normalised float32 of the same shape.

    Order: pad and crop, mirror, colours, intensity transform, normalise, erase, exchange of channels.
    """
    piece = max(1, CACHED // images[:1].numel()) if images.device.type == "cpu" and len(images) else len(images)
    if piece < len(images):
        rows = [slice(start, start + piece) for start in range(0, len(images), piece)]
        return torch.cat([augment(images[some], chosen.take(some), pad) for some in rows])
    x = mirrored(cropped(images, chosen.shift, pad), chosen.mirror).float().div_(255.0)  # moved as bytes
    x = x if chosen.colour is None else jittered(x, chosen.colour)
    x = x if chosen.lit is None else torch.where(inside(chosen.lit, x), x * chosen.gain[:, :, None, None], x)
    mean, deviation, fill = (on(x, constant) for constant in (MEAN, DEVIATION, ERASED))
    x = x.sub_(mean).div_(deviation)
    x = x if chosen.erased is None else torch.where(inside(chosen.erased, x), fill, x)
    return x if chosen.channel is None else exchanged(x, chosen.channel, chosen.grey)


def cropped(x: Tensor, shift: Tensor, pad: int) -> Tensor:
    """Cut (H, W) windows out of the images padded with zeros."""
    if pad == 0:
        return x
    height, width = x.shape[2:]
    padded = torch.nn.functional.pad(x, (pad, pad, pad, pad))
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, 3, 2 pad + 1, 2 pad + 1, H, W), a view
    return windows[torch.arange(len(x), device=x.device), :, shift[:, 0], shift[:, 1]]


def mirrored(x: Tensor, mirror: Tensor) -> Tensor:
    return torch.where(mirror[:, None, None, None], x.flip(3), x)


def exchanged(x: Tensor, channel: Tensor, grey: Tensor | None = None) -> Tensor:
    """Copy one channel to all three, leave the image as it is (−1), or make it grey."""
    each = torch.where(channel[:, None] < 0, torch.arange(3, device=x.device), channel[:, None])
    out = x[torch.arange(len(x), device=x.device)[:, None], each]
    if grey is None:
        return out
    luminance = (x * on(x, GREY)).sum(1, keepdim=True)
    return torch.where(grey[:, None, None, None], luminance, out)


def jittered(x: Tensor, colour: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue, each image by its own factors."""
    weights = on(x, GREY)
    brightness, contrast, saturation = (colour[:, column, None, None, None] for column in range(3))
    x = (x * brightness).clamp(0, 1)
    middle = (x * weights).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    x = (middle + contrast * (x - middle)).clamp(0, 1)
    grey = (x * weights).sum(1, keepdim=True)
    x = (grey + saturation * (x - grey)).clamp(0, 1)
    return hue_rotated(x, colour[:, 3])


def hue_rotated(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the colours about the grey axis in YIQ space by a fraction of a turn; the luminance is unchanged."""
    to_yiq, from_yiq = on(x, TO_YIQ), on(x, FROM_YIQ)
    cosine, sine = torch.cos(2 * math.pi * turns), torch.sin(2 * math.pi * turns)
    turn = torch.zeros(len(x), 3, 3, device=x.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cosine, -sine, sine, cosine
    matrix = from_yiq @ turn @ to_yiq
    return torch.einsum("bij,bjhw->bihw", matrix, x).clamp(0, 1)


def inside(rectangle: Tensor, x: Tensor) -> Tensor:
    """(B, 1, H, W) bool: pixels within each image's rectangle."""
    top, left, high, wide = (rectangle[:, column, None] for column in range(4))
    rows, columns = torch.arange(x.shape[2], device=x.device), torch.arange(x.shape[3], device=x.device)
    vertical = (rows >= top) & (rows < top + high)
    horizontal = (columns >= left) & (columns < left + wide)
    return (vertical[:, :, None] & horizontal[:, None, :])[:, None]
