"""The files from which ``two_stream`` loads weights: its own, torchvision's ResNets, and the authors' published ones."""

from __future__ import annotations

from reidassoc.weights import Layout

# The published networks keep three whole ResNets, of which they use two stems and one body.
_BODY = (
    (r"visible_module\.visible\.(conv1|bn1)\.", (r"stems.visible.\1.",)),
    (r"thermal_module\.thermal\.(conv1|bn1)\.", (r"stems.infrared.\1.",)),
    (r"base_resnet\.base\.layer", ("shared.layer",)),
    (r"bottleneck\.", ("neck.",)),
)
_PARTS = (
    (r"attn_pool\.part_tokens", ("heads.tokens",)),
    (r"bottleneck_part\.", ("heads.neck.",)),
)
_NON_LOCAL = (
    (r"NL_(\d)\.(\d)\.(theta|phi)\.", (r"non_local.layer\1.\2.\3.",)),
    (r"NL_(\d)\.(\d)\.g\.0\.", (r"non_local.layer\1.\2.g.",)),
    (r"NL_(\d)\.(\d)\.W\.0\.", (r"non_local.layer\1.\2.expand.",)),
    (r"NL_(\d)\.(\d)\.W\.1\.", (r"non_local.layer\1.\2.norm.",)),
)
_UNUSED = (
    r"(visible_module\.visible|thermal_module\.thermal)\.(layer[1-4]|fc)\."
    r"|base_resnet\.base\.(conv1|bn1|fc)\."
    r"|(classifier|adnet|disnet|gem)\.|attn_pool\.pos_embeding$"
)

LAYOUTS = {
    "agw": Layout(mark=r"NL_2\.", rules=_BODY + _NON_LOCAL, ignored=_UNUSED),
    "salcr": Layout(mark=r"attn_pool\.", rules=_BODY + _PARTS, ignored=_UNUSED),
    "mult": Layout(mark=r"visible_module\.", rules=_BODY, ignored=_UNUSED),
    "torchvision": Layout(
        mark=r"conv1\.weight$",
        rules=(
            (r"(conv1|bn1)\.", (r"stems.visible.\1.", r"stems.infrared.\1.")),
            (r"layer([1-4])\.", (r"shared.layer\1.",)),
        ),
        ignored=r"(fc|classifier)\.",  # torchvision's and torchreid's classifiers
        optional=r"(neck|heads|non_local)\.",
    ),
}
