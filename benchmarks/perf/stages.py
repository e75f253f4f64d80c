"""The stages of the suite by name, in the order of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import evaluation_stages as evaluation
import label_stages as labels
import training_stages as training
from bench import Bench
from meter import Row

TINY, RESNET = "3 x 64 images 64 x 32", "3 x 8 images 288 x 144"

STAGES: dict[str, Callable[[Bench], Row]] = {
    "neighbours": labels.neighbours,
    "jaccard": labels.jaccard,
    "dbscan": labels.clusters,
    "centroid_transport": labels.centroid_transport,
    "instance_transport": labels.instance_transport,
    "label_transfer": labels.label_transfer,
    "label_stage": labels.label_stage,
    "mmm": labels.mmm,
    "cmfp": labels.cmfp,
    "bank_update": training.bank_update,
    "oclr": training.oclr,
    "gpcr": training.gpcr,
    "augmentation": training.augmentation,
    "training_step": training.training_step,
    "mult_step": lambda b: training.whole_step(b, "mult", "tiny", TINY),
    "salcr_step": lambda b: training.whole_step(b, "salcr", "tiny", TINY),
    "mult_step_resnet": lambda b: training.whole_step(b, "mult", "resnet50", RESNET),
    "salcr_step_resnet": lambda b: training.whole_step(b, "salcr", "resnet50", RESNET),
    "channels_last": lambda b: training.option(b, "resnet50", "channels_last", RESNET),
    "compile": lambda b: training.option(b, "tiny", "compile", TINY),
    "compile_resnet": lambda b: training.option(b, "resnet50", "compile", RESNET),
    "data_path": training.data_path,
    "extraction": training.extraction,
    "extraction_read": lambda b: training.extraction_read(b, "tiny"),
    "extraction_read_resnet": lambda b: training.extraction_read(b, "resnet50"),
    "evaluation": evaluation.evaluation,
    "label_quality": evaluation.quality,
}


def rows(bench: Bench, names: list[str]) -> Iterator[Row]:
    for name in names:
        yield STAGES[name](bench)
