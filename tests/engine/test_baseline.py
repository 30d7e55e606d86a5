"""Baselines without a backbone. Shapes: N rows, K classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from headstart.engine import baseline
from headstart.engine.baselines import image
from headstart.engine.streams import Examples

CLASSES = ("dark", "red", "stripes")


def relabelled(examples: Examples, labels: np.ndarray) -> Examples:
    return replace(examples, rows=replace(examples.rows, labels=labels))


def test_pixels_tell_colours_and_brightness_apart(examples: Callable[..., Examples]) -> None:
    majority, pixels = baseline.baselines(examples(60), examples(30, "val", seed=1), CLASSES)
    assert [majority.name, pixels.name] == ["majority", "pixels"]
    assert pixels.evaluation.metric("accuracy").value == 1
    assert majority.evaluation.metric("accuracy").value == pytest.approx(1 / 3)
    for each in (majority, pixels):
        assert each.evaluation.split == "val"
        assert each.evaluation.rows.tolist() == list(range(30))
        assert each.seconds >= 0


def test_what_was_learnt_answers_other_rows_too(examples: Callable[..., Examples]) -> None:
    train, val, test = examples(60), examples(30, "val", seed=1), examples(21, "test", seed=2)
    for each in baseline.baselines(train, val, CLASSES):
        again, other = each.on(val), each.on(test)
        assert again.probabilities == pytest.approx(each.evaluation.probabilities, abs=1e-5), "asked again"
        assert (other.split, other.rows.tolist(), other.classes) == ("test", list(range(21)), CLASSES)
        assert np.array_equal(other.labels, test.rows.labels)
        assert other.metric("accuracy").value == (1 if each.name == "pixels" else pytest.approx(1 / 3))


def test_where_labels_mean_nothing_pixels_are_no_better_than_chance(examples: Callable[..., Examples]) -> None:
    rng = np.random.default_rng(0)
    train = relabelled(examples(90), rng.integers(0, 3, 90))
    val = relabelled(examples(90, "val", seed=1), rng.integers(0, 3, 90))
    assert baseline.baselines(train, val, CLASSES)[1].evaluation.metric("accuracy").value < 0.5


def test_majority_answers_the_frequencies_of_the_training_rows(examples: Callable[..., Examples]) -> None:
    train = relabelled(examples(20), np.array([1] * 15 + [0] * 5))
    val = relabelled(examples(6, "val"), np.array([0, 1, 2, 1, 1, 1]))
    evaluation = baseline.baselines(train, val, CLASSES)[0].evaluation
    assert set(evaluation.predicted.tolist()) == {1}
    assert evaluation.probabilities[0] == pytest.approx(np.array([5.5, 15.5, 0.5]) / 21.5)


def test_the_same_rows_give_the_same_answers(examples: Callable[..., Examples]) -> None:
    first = baseline.baselines(examples(30), examples(12, "val", seed=1), CLASSES)[1].evaluation
    again = baseline.baselines(examples(30), examples(12, "val", seed=1), CLASSES)[1].evaluation
    assert np.array_equal(first.logits, again.logits)


def test_the_look_is_cell_means_moments_and_shares() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (64, 32, 3)).astype(np.uint8)
    seen = image.look(picture)
    cells = picture.reshape(8, 8, 8, 4, 3).mean((1, 3)) / 255
    assert seen[:192] == pytest.approx(cells.ravel(), abs=1e-5)
    assert seen[192:195] == pytest.approx(picture.reshape(-1, 3).mean(0) / 255, abs=1e-5)
    assert seen[195:198] == pytest.approx(picture.reshape(-1, 3).std(0) / 255, abs=1e-5)
    shares = [np.histogram(picture[..., channel], 8, (0, 256))[0] / (64 * 32) for channel in range(3)]
    assert seen[198:] == pytest.approx(np.concatenate(shares), abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 5, 1), (28, 28, 1), (256, 900, 4), (63, 65, 3), (130, 8, 3)])
def test_every_shape_gives_as_many_numbers(shape: tuple[int, int, int]) -> None:
    flat = image.look(np.full(shape, 51, np.uint8))
    channels = shape[2]
    assert flat.shape == ((64 + 2 + 8) * channels,)
    assert flat[: 64 * channels] == pytest.approx(0.2)
    assert flat[-8 * channels :].sum() == pytest.approx(channels)
    picture = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    seen = picture[:: max(1, shape[0] // 64), :: max(1, shape[1] // 64)].astype(np.float64)
    down, across = (
        np.arange(8) * side // 8 for side in seen.shape[:2]
    )  # reduceat gives the one pixel of an empty cell
    sums = np.add.reduceat(np.add.reduceat(seen, down, axis=0), across, axis=1)
    sides = [np.diff(begins, append=side).clip(1) for begins, side in zip((down, across), seen.shape, strict=False)]
    assert image.look(picture)[: 64 * channels] == pytest.approx((sums / np.outer(*sides)[..., None]).ravel() / 255)


def test_many_rows_are_sampled_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "MOST_ROWS", 100)
    labels = np.array([0] * 900 + [1] * 98 + [2] * 2)
    chosen = baseline._sample(labels)
    assert len(np.unique(chosen)) == len(chosen)
    assert np.bincount(labels[chosen]).tolist() == [90, 10, 1]
    assert baseline._sample(labels[-100:]).tolist() == list(range(100))
