"""Toys of the engine's tests: drawn pictures in memory, a small network, and a job around them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine import balance, features, groups, streams
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.loop import Job, Loop
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.models import backbone, heads
from headstart.models.model import Model
from headstart.stages.base import Training
from headstart.stages.learner import Learner
from headstart.tasks.classify import Loss

CLASSES = ("dark", "red", "stripes")


def pictures(n: int, seed: int, size: int = 32) -> Rows:
    """N noisy pictures of three kinds that any network can tell apart."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    items = []
    for label in labels:
        value = rng.integers(90, 160, (size, size, 3))
        if label == 0:
            value -= 70
        elif label == 1:
            value[:, :, 0] += 90
        else:
            value[:, ::4] += 90
        items.append(value.clip(0, 255).astype(np.uint8))
    return Rows(items, labels.astype(np.int64), tuple(f"picture {i}" for i in range(n)))


@pytest.fixture
def examples() -> Callable[..., Examples]:
    def make(n: int = 24, split: str = "train", seed: int = 0, spec: ImageSpec | None = None) -> Examples:
        spec = spec or ImageSpec(size=(32, 32), resize=32)
        rows = pictures(n, seed)
        return Examples(split, rows, Store.build(rows, spec), spec)

    return make


@pytest.fixture
def model() -> Callable[..., Model]:
    def make(name: str = "builtin/tiny", seed: int = 0, **head: Any) -> Model:
        body = backbone.load(name, image_size=32, pretrained=False, seed=seed)
        torch.manual_seed(seed)
        body.train()
        with torch.no_grad():  # real BatchNorm statistics, as those of a trained network
            for _ in range(5):
                body(torch.rand(8, 3, 32, 32) * 4 - 2)
        top = heads.build(head.pop("kind", "linear"), body.feature_dim, len(CLASSES), seed=seed, **head)
        return Model(body.eval(), top, CLASSES)

    return make


@pytest.fixture
def loop(examples: Callable[..., Examples], model: Callable[..., Model]) -> Callable[..., Loop]:
    """A loop over toys: ``loop(Training(...), folder=…, blocks=…)``; ``cached`` trains from the frontier."""

    def make(
        settings: Training,
        *,
        net: Model | None = None,
        blocks: Any = "all",
        folder: Path | None = None,
        rows: int = 24,
        runtime: Runtime | None = None,
        cache: Any = None,
        **job: Any,
    ) -> Loop:
        net = net or model()
        net.thaw(blocks)
        runtime = runtime or Runtime("cpu")
        train, val = examples(rows), examples(12, "val", seed=1)
        weights = balance.row_weights(train.rows.labels, 3) if settings.sampler == "balanced" else None
        order = streams.Order(7, 0, train.rows, settings.batch_size, weights)
        stream = (
            streams.CachedStream(runtime, order, cache) if cache else streams.LiveStream(runtime, order, train, None)
        )
        count = len(net.backbone.blocks)
        chosen = groups.groups(
            [(f"model.{name}", parameter) for name, parameter in net.named_parameters()],
            {f"model.{name}": depth for name, depth in net.depths().items() if depth <= count},
            net.backbone.blocks,
            weight_decay=settings.weight_decay,
            **settings.by_depth,
        )
        return Loop(
            Job(
                runtime=runtime,
                learner=Learner(net, Loss(label_smoothing=settings.label_smoothing), runtime.autocast),
                settings=settings,
                stream=stream,
                groups=chosen,
                validate=lambda: features.evaluate(net, val, runtime, batch_size=8),
                metric="accuracy",
                stage=0,
                seed=7,
                checkpoints=Checkpoints(folder) if folder else None,
                names=train.rows.names,
                **job,
            )
        )

    return make
