"""What can be told without a backbone, one file a modality: ``NAME`` and ``learn(train, val, num_classes, rows)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from headstart.engine.streams import Examples
from headstart.stages.solver import Path, solve_path

Answers = Callable[[Examples], np.ndarray]
Looks = Callable[[Examples, np.ndarray], np.ndarray]


class Learnt(NamedTuple):
    """Logits (N, K) on the validation rows, and what gives them for other rows."""

    logits: np.ndarray
    answers: Answers


def linear(looks: Looks, train: Examples, val: Examples, num_classes: int, rows: np.ndarray) -> Learnt:
    """Logistic regression on what ``looks`` sees of the training ``rows``; its strength is chosen on the validation
    rows, as a probe's is."""
    seen = looks(train, rows), looks(val, np.arange(len(val)))
    path: Path = solve_path(seen[0], train.rows.labels[rows], seen[1], val.rows.labels, num_classes)
    weight, bias = path.weight.numpy(), path.bias.numpy()
    return Learnt(path.held_out_logits.numpy(), lambda asked: looks(asked, np.arange(len(asked))) @ weight.T + bias)
