"""Contrastive fine-tuning as a stage: pairs train the backbone, then the head is solved on its features.

Shapes: N rows, D features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from headstart.engine import features
from headstart.engine.cache import FrontierCache
from headstart.engine.pairs import PairStream
from headstart.engine.streams import Examples, augmentation
from headstart.measure.evaluation import Evaluation
from headstart.stages.contrasting import Contraster
from headstart.stages.learner import POOLED
from headstart.stages.methods import contrastive
from headstart.workflows import solving, vocabulary
from headstart.workflows.outcomes import Outcome

if TYPE_CHECKING:
    from headstart.workflows.course import Course


def contrast(course: Course, index: int, stage: contrastive.Settings) -> Outcome:
    """Every epoch is judged by a head that is solved on the features as they are then."""
    model, runtime, train = course.model, course.runtime, course.train
    course.prepare(stage)
    blocks = len(model.backbone.blocks)
    course.start(
        index, stage, f"{blocks - model.frozen_prefix} of {blocks} blocks, by pairs of rows; the head is solved"
    )
    model.head.requires_grad_(False)  # it has no part in the loss

    def solved() -> tuple[nn.Linear, Evaluation, dict[str, Any]]:
        with runtime.exactly():
            known, asked = _features(course, train), _features(course, course.val)
        labels = torch.as_tensor(train.rows.labels)
        return solving.solve(known, labels, asked, course.val, model, runtime)

    augment = augmentation(stage.augment, train.store.modality)
    options = {"pairs": stage.pairs, "batch_size": stage.batch_size, "augment": augment}
    stream = PairStream(runtime, train, key=(course.seed, index), **options)
    learner = Contraster(model, runtime.autocast)
    heads = []

    def judge() -> Evaluation:
        heads.append(solved())
        return heads[-1][1]

    with vocabulary.narrowed(course, stage):
        loop = course.descend(index, stage, learner, stream, judge, course.metric)
    layer, evaluation, path = next((each for each in heads if each[1] is loop.judged), None) or solved()
    model.head.last.load_state_dict(layer.state_dict())
    model.head.requires_grad_(True)
    return course.told(loop, evaluation, None, {"probe": path})


def _features(course: Course, examples: Examples) -> torch.Tensor:
    """Features (N, D) of the backbone as it is now: they serve once, so they are not kept."""
    into = FrontierCache(POOLED, len(examples))
    backbone = course.model.backbone
    features.fill([into], 0, examples, lambda inputs: [backbone.features(inputs)], course.runtime, emit=course.emit)
    return into.features(0)
