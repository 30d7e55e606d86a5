"""Whether an ONNX file answers as its model does in torch.

Shapes: B rows, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from headstart.deploy import graph
from headstart.deploy.contract import INPUT
from headstart.deploy.runtimes import onnxruntime
from headstart.measure.metrics import softmax
from headstart.models import heads
from headstart.models.backbone import Backbone
from headstart.models.model import Model

TEMPERATURE = 0.7


def lively(backbone: Backbone, batches: Sequence[np.ndarray], classes: Sequence[str]) -> Model:
    """A model whose random head is centred on what it sees, so that it does not say the same of everything."""
    head = heads.build("linear", backbone.feature_dim, len(classes), classes=tuple(classes), seed=0)
    torch.nn.init.normal_(head.last.weight, generator=torch.Generator().manual_seed(1))
    model = Model(backbone, head, tuple(classes), temperature=TEMPERATURE).eval()
    with torch.no_grad():
        features = torch.cat([backbone.features(torch.from_numpy(batch)) for batch in batches])
        spread = features.std(dim=0).mean().clamp_min(1e-6)
        head.last.weight.div_(spread)
        head.last.bias.copy_(-features.mean(dim=0) @ head.last.weight.T)
    return model


def differences(model: Model, path: Path, batches: Sequence[np.ndarray]) -> tuple[int, float]:
    """Decisions that differ from torch's, and the largest difference of logits, relative to the largest logit."""
    session = onnxruntime.load(path, threads=1)
    found, wanted = [], []
    for batch in batches:
        logits, shares = session(batch)
        assert np.allclose(shares, softmax(logits / TEMPERATURE), atol=1e-5), "the temperature stands inside"
        found.append(logits)
        wanted.append(graph.golden(model, batch).logits)
    ours, theirs = np.concatenate(found), np.concatenate(wanted)
    said = theirs.argmax(axis=1)
    assert len(np.unique(said)) > 1, "a network that always says the same proves nothing"
    return int((ours.argmax(axis=1) != said).sum()), float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def dimensions(path: Path) -> list[Any]:
    """Of the input: a number where it is fixed, a name where it may be any."""
    (given,) = onnx.load(path).graph.input
    assert given.name == INPUT
    return [each.dim_param or each.dim_value for each in given.type.tensor_type.shape.dim]
