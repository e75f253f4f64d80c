"""A vision transformer as a two-stream network: a patch embedding for each modality, shared blocks. Needs timm."""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from reidassoc.errors import DataError, RecipeError, SpecError, nearest_name
from reidassoc.interfaces import Network, NetworkOutput
from reidassoc.ops.precision import at_least_single
from reidassoc.registry.extras import needed
from reidassoc.weights import load_into, read_state, reason, strip_prefixes
from reidassoc_plugins.networks.necks import neck
from reidassoc_plugins.networks.parts import PartHeads, of_streams
from reidassoc_plugins.networks.pooling import generalised_mean
from reidassoc_plugins.networks.two_stream import STEM

FAMILIES = ["vision_transformer", "deit"]  # timm's modules of plain transformers, whose pieces this network exchanges
STEM_KEY = "patch_embed.proj.weight"  # timm's name; a network of two stems has others
HEADS = r"(head|head_dist|pre_logits)\."  # what a classifier has and this network has not


@dataclass(frozen=True, kw_only=True)
class Vit(Network):
    """ViT with a patch embedding per modality and shared blocks, from timm; class token or pooled patches, BN neck.

    Position embeddings are resized to the images' grid of patches (18 × 9 for 288 × 144 and patches of 16); pixels at the
    right and bottom that fill no patch are not seen. ``feature``: the class token; ``gem``, the generalised mean over the
    patches, in which negative values count as 0; or ``mean``. ``parts`` are SALCR's part heads on the patches.

    >>> network = Vit(backbone="test_vit", weights="none").build(size=(64, 32))
    >>> network({"infrared": torch.zeros(2, 3, 64, 32)})["infrared"].z.shape
    torch.Size([2, 64])
    """

    paper: ClassVar[str] = "Dosovitskiy et al., ICLR 2021; for re-identification: He et al., TransReID, ICCV 2021"
    variants: ClassVar[tuple[str, ...]] = ("parts=3",)

    backbone: Annotated[str, Field(description="timm's name of a plain ViT or DeiT; a tag chooses its weights")] = (
        "vit_base_patch16_224"
    )
    feature: Annotated[Literal["token", "gem", "mean"], Field(description="what stands for an image")] = "token"
    parts: Annotated[int, Field(ge=0, description="part features per image (SALCR: 3); 0 = none")] = 0
    weights: Annotated[str, Field(description="start: imagenet (timm's), none, or a file of weights")] = "imagenet"

    @property
    def gives(self) -> frozenset[str]:  # type: ignore[override]  # what it gives depends on its options
        return frozenset({"parts"}) if self.parts else frozenset()

    def build(self, *, size: tuple[int, int]) -> nn.Module:
        """Return the module for images of ``size`` (height, width).

        Raises:
            PluginError: timm is not installed.
            SpecError: timm has no such plain transformer, or it has no class token.
            RecipeError: the images are too small for a patch, or for the parts.
            CheckpointError: the weights file can't be read or does not fit.
            DataError: timm's weights can't be had.
        """
        make = self.maker(size)
        body = make()
        grid: tuple[int, int] = body.patch_embed.grid_size
        if min(grid) < 1 or grid[0] * grid[1] < self.parts:
            patch = "{} x {}".format(*body.patch_embed.patch_size)
            raise RecipeError(
                f"vit(parts={self.parts}): images of {size[0]} x {size[1]} pixels are too small for patches of {patch}"
            )
        if self.feature == "token" and body.cls_token is None:
            raise SpecError(f"vit: {self.backbone} has no class token; take feature='gem' or feature='mean'")
        if self.weights == "imagenet":
            body = self.pretrained(make)
        state = None if self.weights in ("imagenet", "none") else read_state(self.weights)
        plain = next((each for each in strip_prefixes(state or {}) if STEM_KEY in each), None)
        if plain is not None:  # a transformer of one stem, at any size of image
            load_into(body, fitted(plain, body), [], source=self.weights)
            state = None
        module = VitModule(body, feature=self.feature, parts=self.parts)
        if state is not None:
            load_into(module, state, [], source=self.weights)
        return module

    def maker(self, size: tuple[int, int]) -> Any:
        """timm's ``create_model`` for this backbone, without its classifier."""
        timm = needed("timm", "vit", by="network vit")
        name = self.backbone.partition(".")[0]
        known = [model for model in timm.list_models(module=FAMILIES) if "distilled" not in model]
        if name not in known:
            raise SpecError(
                f"vit: timm {timm.__version__} has no plain transformer '{name}'{nearest_name(name, known)}"
            )
        tags = [model.partition(".")[2] for model in timm.list_pretrained(f"{name}.*")]
        if "." in self.backbone and self.backbone.partition(".")[2] not in tags:
            raise SpecError(f"vit: timm has no weights '{self.backbone}'; tags of {name}: {', '.join(tags) or 'none'}")
        return partial(
            timm.create_model, self.backbone, img_size=size, num_classes=0, global_pool="", dynamic_img_size=False
        )

    def pretrained(self, make: Any) -> Any:
        try:
            with quiet("huggingface_hub"):  # which reports each of a dozen attempts
                return make(pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:  # no connection, a broken file, no weights of that name
            raise DataError(
                f"the ImageNet weights of {self.backbone} could not be loaded ({reason(error)}); fetch model.safetensors from "
                f"https://huggingface.co/{make().default_cfg.get('hf_hub_id') or 'timm'} elsewhere and pass it as "
                "--weights FILE, or start from random weights with --weights none"
            ) from error


class VitModule(nn.Module):
    """Maps ``{stream: images (B, 3, H, W)}`` to ``{stream: NetworkOutput}``, for any of the three streams.

    Streams pass their stem, visible and augmented the same, and then all together the shared blocks and the neck.

    Args:
        body: timm's VisionTransformer, whose patch embedding becomes the stems.
        feature: token, gem or mean.
        parts: P of the part heads; 0 = none.
    """

    def __init__(self, body: Any, *, feature: str, parts: int = 0) -> None:
        super().__init__()
        self.feature = feature
        self.grid: tuple[int, int] = tuple(body.patch_embed.grid_size)
        self.width: int = body.embed_dim
        self.stems = nn.ModuleDict({"visible": body.patch_embed, "infrared": deepcopy(body.patch_embed)})
        body.patch_embed = nn.Identity()  # patches come embedded
        self.body = body
        self.neck = neck(self.width)
        self.heads = PartHeads(parts, self.width) if parts else None

    def forward(self, images: Mapping[str, Tensor]) -> dict[str, NetworkOutput]:
        if not images or set(images) - set(STEM):
            raise ValueError(f"vit takes the streams {', '.join(STEM)}, got {', '.join(images) or 'none'}")
        streams = [stream for stream in STEM if stream in images]
        sizes = [len(images[stream]) for stream in streams]
        patches = [self.stems[STEM[stream]](images[stream]) for stream in streams]
        tokens = self.body.forward_features(torch.cat(patches))
        x = tokens[:, self.body.num_prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)
        pooled = self.pool(tokens, x)
        maps = dict(zip(streams, torch.split(x, sizes), strict=True))
        parts = of_streams(self.heads, maps)
        outputs = zip(streams, torch.split(self.neck(pooled), sizes), torch.split(pooled, sizes), strict=True)
        return {stream: NetworkOutput(z, before, maps[stream], parts[stream]) for stream, z, before in outputs}

    def pool(self, tokens: Tensor, x: Tensor) -> Tensor:
        """One feature per image (B, D), at least float32."""
        if self.feature == "token":
            return at_least_single(tokens[:, 0])
        return generalised_mean(x.clamp_min(0)) if self.feature == "gem" else at_least_single(x).mean((2, 3))


def fitted(state: Mapping[str, Tensor], body: Any) -> dict[str, Tensor]:
    """A plain transformer's weights for this one's grid of patches: position embeddings resized, classifiers left out."""
    known = importlib.import_module("timm.models.vision_transformer").checkpoint_filter_fn(dict(state), body)
    return {key: tensor for key, tensor in known.items() if not re.match(HEADS, key)}


@contextmanager
def quiet(name: str) -> Iterator[None]:
    """Hold back a logger's warnings."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
