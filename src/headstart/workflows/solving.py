"""The head solved on features: what a probe does, and what ends a contrastive stage.

Shapes: N rows, D features, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.measure.evaluation import Evaluation
from headstart.models.model import Model
from headstart.stages import solver


def solve(
    train: torch.Tensor,
    labels: torch.Tensor,
    val: torch.Tensor,
    judged: Examples,
    model: Model,
    runtime: Runtime,
    **options: Any,
) -> tuple[nn.Linear, Evaluation, dict[str, Any]]:
    """The linear layer for features (N, D), what it answers on those of validation rows, and the path of strengths.

    Args:
        train, labels, options: as of ``solver.solve_path``.
        val: features of the rows ``judged``.
    """
    classes = model.classes
    path = solver.solve_path(train, labels, val, torch.as_tensor(judged.rows.labels), len(classes), **options)
    layer = nn.Linear(train.shape[1], len(classes))
    with torch.no_grad():
        layer.weight.copy_(path.weight)
        layer.bias.copy_(path.bias)
    layer.requires_grad_(False).to(runtime.device)
    runtime.share(layer)
    logits = val @ layer.weight.cpu().T + layer.bias.cpu()
    rows = np.arange(len(val))
    answers = Evaluation("val", rows, logits.numpy(), judged.rows.labels, classes, threshold=model.threshold)
    return layer, answers, path.to_json()
