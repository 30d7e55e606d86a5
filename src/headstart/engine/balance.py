"""Unequal classes: weights of the loss, or weights of the rows for a balanced order (``keyed.weighted_order``).

Of labels (N, K) of 0 and 1, of which a row may have several, a weight says how much more it costs to miss a label than
to give a wrong one.

Shapes: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from headstart.core.errors import ConfigError, Problem
from headstart.core.registry import suggest
from headstart.data.splits import counted


def class_weights(
    labels: np.ndarray, classes: Sequence[str], choice: str | Mapping[str, float] = "balanced"
) -> tuple[float, ...] | None:
    """One weight a class, scaled so that the mean over the training rows is 1; None for "none".

    "balanced" is N / (K n_k), as in scikit-learn; a mapping names weights by class (1 where it names none) and only
    their ratios matter, so that weights never act as another learning rate. Of labels of which a row may have several,
    "balanced" is (N - n_k) / n_k, so that the rows with a label weigh as much as those without it; named ones are taken
    as they are.

    Args:
        labels: training labels (N,), class indices; or (N, K) of 0 and 1.

    Raises:
        ConfigError: an unknown class or choice, a weight that is not positive, or a class without rows to balance.
    """
    if choice == "none":
        return None
    counts = counted(labels, len(classes))
    if isinstance(choice, Mapping):
        _check(choice, classes)
        given = np.array([float(choice.get(name, 1.0)) for name in classes])
        if labels.ndim == 2:
            return tuple(given.tolist())
        return tuple((given * len(labels) / (given @ counts)).tolist())
    if choice != "balanced":
        raise ConfigError(f"unknown choice '{choice}'", where="class_weights", remedy="balanced, none, or name: weight")
    empty = [str(name) for name, count in zip(classes, counts, strict=True) if count == 0]
    if empty:
        raise ConfigError(f"no training rows to balance: {', '.join(empty)}", where="class_weights")
    if labels.ndim == 2:
        full = [str(name) for name, count in zip(classes, counts, strict=True) if count == len(labels)]
        if full:
            raise ConfigError(f"every training row is {', '.join(full)}: nothing to balance", where="class_weights")
        return tuple(((len(labels) - counts) / counts).tolist())
    return tuple((len(labels) / (len(classes) * counts)).tolist())


def row_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """Weights (N,) float64, mean 1, under which all classes that have rows count the same: N / (K n_k).

    Raises:
        ConfigError: rows may have several labels: drawing one more often changes the others too.
    """
    if labels.ndim == 2:
        what = "rows that may have several labels cannot be drawn so that all come equally often"
        raise ConfigError(what, where="sampler", remedy="class_weights=balanced weighs the labels instead")
    counts = np.bincount(labels, minlength=classes)
    return len(labels) / (np.count_nonzero(counts) * counts[labels].astype(np.float64))


def _check(choice: Mapping[str, float], classes: Sequence[str]) -> None:
    problems = [
        Problem(f"no class is called '{name}'{suggest(name, classes)}", "class_weights")
        for name in choice
        if name not in classes
    ]
    problems += [
        Problem(f"{value!r} is no positive weight", f"class_weights.{name}")
        for name, value in choice.items()
        if not (np.isfinite(value) and value > 0)
    ]
    if problems:
        raise ConfigError("the class weights are wrong", problems=problems)
