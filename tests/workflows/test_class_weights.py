"""Class weights of a probe: they reach the solver, of rows of one class each and of rows with any number of labels.

Shapes: N rows, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.run import Run
from headstart.data.modalities.image import ImageSpec
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.engine.frontier import Frontiers
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples
from headstart.models import backbone, heads
from headstart.models.model import Model
from headstart.stages import solver
from headstart.stages.methods import probe
from headstart.workflows.course import Course

CLASSES = ("dark", "red", "stripes")
SPEC = ImageSpec(size=(32, 32), resize=32)


def pictures(labels: np.ndarray, split: str) -> Examples:
    """Noise that is a little darker, redder or striped by its labels: so little that weights matter."""
    rng = np.random.default_rng(len(labels))
    marks = labels if labels.ndim == 2 else np.eye(3, dtype=np.int64)[labels]
    items = []
    for dark, red, stripes in marks:
        value = rng.integers(90, 160, (32, 32, 3)) - 9 * int(dark)
        value[:, :, 0] += 9 * int(red)
        value[:, ::4] += 9 * int(stripes)
        items.append(value.astype(np.uint8))
    rows = Rows(items, labels, tuple(f"picture {row}" for row in range(len(labels))))
    return Examples(split, rows, Store.build(rows, SPEC), SPEC)


@pytest.fixture
def solved(tmp_path: Path) -> Callable[..., tuple[Course, torch.Tensor]]:
    """A course after its probe, and the weights (K, D) of its head."""

    def make(train: np.ndarray, val: np.ndarray, weights: Any) -> tuple[Course, torch.Tensor]:
        body = backbone.load("builtin/tiny", image_size=32, pretrained=False, seed=0)
        net = Model(body, heads.build("linear", body.feature_dim, 3, seed=0), CLASSES)
        net.task = "multilabel" if train.ndim == 2 else "classify"
        runtime = Runtime("cpu")
        frontiers = Frontiers(net, runtime, lambda event: None, 7, 10**9, None)
        sets = pictures(train, "train"), pictures(val, "val")
        folder = tmp_path / str(weights)
        course = Course(Run(folder), runtime, net, *sets, frontiers, lambda event: None, 7, "log_loss")
        course.take(0, probe.Settings(class_weights=weights))
        return course, net.head.last.weight.detach().clone()

    return make


def derived(course: Course, **options: Any) -> torch.Tensor:
    """The weights that the solver finds for the features of this course."""
    train, val = (course.frontiers.pooled(each) for each in (course.train, course.val))
    labels = [torch.as_tensor(each.rows.labels) for each in (course.train, course.val)]
    return solver.solve_path(train, labels[0], val, labels[1], 3, **options).weight


CHOICES = ["none", "balanced", {"dark": 4.0, "red": 1.0, "stripes": 2.0}]
IDS = ["none", "balanced", "named"]


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_a_row_weighs_as_its_class_does(solved: Callable[..., Any], choice: Any) -> None:
    """Balanced, N / (K n_k); named ones in their ratios, so that the mean weight of a row is one."""
    labels = np.repeat([0, 1, 2], [4, 24, 8])
    course, found = solved(labels, np.arange(12) % 3, choice)
    of_class = {"none": np.ones(3), "balanced": 36 / (3 * np.bincount(labels))}
    rows = of_class[choice][labels] if isinstance(choice, str) else np.array(list(choice.values()))[labels]
    weights = torch.tensor(rows / rows.mean(), dtype=torch.float32)
    assert torch.allclose(found, derived(course, weights=weights), atol=1e-5)
    assert torch.allclose(found, derived(course), atol=1e-3) == (choice == "none"), "the weights change nothing"


@pytest.mark.parametrize("choice", CHOICES, ids=IDS)
def test_rows_with_a_label_weigh_as_it_does(solved: Callable[..., Any], choice: Any) -> None:
    """Balanced, those with it weigh in all as much as those without it; named weights are taken as they are."""
    rng = np.random.default_rng(0)
    train = (rng.random((40, 3)) < [0.15, 0.5, 0.75]).astype(np.uint8)
    course, found = solved(train, (rng.random((16, 3)) < 0.5).astype(np.uint8), choice)
    counts = train.sum(axis=0)
    of_label = {"none": np.ones(3), "balanced": (40 - counts) / counts}
    positive = of_label[choice] if isinstance(choice, str) else np.array(list(choice.values()))
    assert torch.allclose(found, derived(course, positive=tuple(positive.tolist())), atol=1e-5)
    assert torch.allclose(found, derived(course), atol=1e-3) == (choice == "none"), "the weights change nothing"
