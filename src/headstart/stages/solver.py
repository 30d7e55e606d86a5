"""Multinomial logistic regression on cached features, for a whole path of L2 strengths; of several labels, one each.

Objective, for weights W (K, D), bias b (K,) and features standardised here (as by scikit-learn's ``StandardScaler``):

    sum_i w_i · cross_entropy(W x_i + b, y_i) / sum_i w_i  +  strength / 2 · ‖W‖²,   the bias unpenalised,

which is ``sklearn.linear_model.LogisticRegression(C=1 / (strength · sum_i w_i))``; for K = 2 the penalty is doubled,
because scikit-learn fits one weight vector there and penalises that. Labels (N, K) of 0 and 1, of which a row may have
several, are K regressions of a yes or no each, side by side, equal to scikit-learn's of every column; one strength is
chosen for all of them by their losses together.

How it is fast: rotated features with a fitting diagonal (``logistic.py``), and strengths solved from strong to weak,
each from where the path leads on (``descent.py``). Starting at the solution before already beat solving all strengths
side by side, in one product, three to five times in measured work. The folds of a cross-validation are solved side by
side. The path is solved to its weak end, although the held-out loss has mostly turned before: where the largest
directions hold nothing but noise it falls again behind a crest (pairs of texts: .69, .75, .28).

Shapes: N rows, M validation rows, D features, r rotated features (at most min(N, D)), K classes, R strengths,
P problems solved side by side (1, or one a fold and one on all rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.core.errors import Problem, TrainingError
from headstart.models import threads
from headstart.stages.descent import follow
from headstart.stages.logistic import Frame, Single, Weighted, frame_of

STRENGTHS = tuple(float(10 ** (1 - step / 3)) for step in range(20))  # 10 … 4.6e-6, three a decade
METRICS = ("log_loss", "accuracy")
TOLERANCE = 1e-4
MAX_ITERATIONS = 200
FOLDS = 5
# Rotated features of all problems, up to which one thread solves them: several gain little there, and beside other work
# they wait for each other at the end of every product, on two cores thirty times as long as the work takes.
SMALL = 2**20


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions for all strengths (strong to weak), their scores on held-out rows, the chosen one as a linear layer."""

    strengths: tuple[float, ...]
    log_losses: tuple[float, ...]  # on the validation rows, or out of fold
    accuracies: tuple[float, ...]  # of several labels the share of them that is right
    objectives: tuple[float, ...]  # on the training rows
    gaps: tuple[float, ...]  # estimated (objective - optimum) / objective
    iterations: tuple[int, ...]
    metric: str
    chosen: int
    held_out: str  # "validation rows", or "5 folds"
    held_out_logits: torch.Tensor  # (M, K), of the chosen strength; out of fold: (N, K) in the order of the features
    weight: torch.Tensor  # (K, D): logits = features @ weight.T + bias, on features as they were given
    bias: torch.Tensor  # (K,)
    coefs: torch.Tensor  # (R, K, r), in the rotated features
    intercepts: torch.Tensor  # (R, K)
    frame: Frame
    several: bool  # whether a row may have several labels

    @property
    def val_scores(self) -> tuple[float, ...]:
        """The values of ``metric`` (R,): log-loss (lower is better) or accuracy (higher is better)."""
        return self.log_losses if self.metric == "log_loss" else self.accuracies

    def linear(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (K, D) and bias (K,) of one strength, for features as they were given."""
        return self.frame.fold(self.coefs[index], self.intercepts[index], centred=not self.several)

    def to_json(self) -> dict[str, Any]:
        return {
            "strengths": list(self.strengths),
            "scores": list(self.val_scores),
            "log_loss": list(self.log_losses),
            "accuracy": list(self.accuracies),
            "metric": self.metric,
            "chosen": self.chosen,
            "held_out": self.held_out,
            "iterations": list(self.iterations),
            "gaps": list(self.gaps),
        }


def solve_path(
    features: Any,
    labels: Any,
    val_features: Any | None,
    val_labels: Any | None,
    num_classes: int,
    *,
    strengths: Sequence[float] | None = None,
    weights: Any | None = None,
    positive: Sequence[float] | None = None,
    views: int = 1,
    metric: str = "log_loss",
    folds: int | Any = FOLDS,
    tolerance: float = TOLERANCE,
    max_iterations: int = MAX_ITERATIONS,
) -> Path:
    """Solve every strength and choose one by its score on validation rows, or out of fold where there are none.

    ``features`` (N, D); with ``views`` V they hold V augmented versions of the rows, one version after the other
    (V·N, D), with labels and weights of the rows (N,) or of all versions (V·N,). ``val_features`` None chooses by
    cross-validation: ``folds`` is their number (stratified) or the fold of every row (N,); standardisation and
    rotation, which see no labels, are of all rows. ``metric`` "accuracy" breaks ties by log-loss, and both prefer the
    stronger penalty. A class without rows gets a low bias and next to no weight. Labels (N, K) of 0 and 1 are solved
    one by one, ``positive`` (K,) weighing the rows that have a label.

    A strength is solved when the estimated distance to the optimum (half the squared Newton decrement, with the
    diagonal of the Hessian) is below ``tolerance`` of the objective and of the weights' own share in it, or when
    float32 allows no further decrease.
    Equal inputs give equal bits on one machine and number of threads.

    Raises:
        TrainingError: shapes disagree, values are not finite, labels out of range, one class only, bad settings.
    """
    rows, targets, mass = _checked(features, labels, num_classes, weights, views)
    several = targets.ndim == 2
    path = _checked_strengths(strengths, metric)
    frame, scores = frame_of(rows)
    jury = _Jury(scores, targets)
    masses = mass[None]
    if val_features is None:
        jury.folds = _fold_numbers(targets[: len(targets) // views], folds).repeat(views).to(rows.device)
        count = int(jury.folds.max()) + 1
        masses = torch.stack([mass * (jury.folds != fold) for fold in range(count)] + [mass])
    else:
        held_out, answers, _ = _checked(val_features, val_labels, num_classes, None, 1, kind="validation", like=rows)
        jury = _Jury(frame.rotate(held_out), answers)
    with threads.set_to(1 if scores.numel() * len(masses) <= SMALL else None):
        if several:
            problem: Weighted = _one_by_one(scores, frame, targets, masses, positive)
        else:
            problem = Weighted(scores, frame.curvature, targets, masses, num_classes)
        solved = [
            (solution.view(len(masses), num_classes, -1), objective.view(len(masses), -1)[-1], gap, count)
            for solution, objective, gap, count in follow(problem, path, tolerance, max_iterations)
        ]
        judged = [jury.score(solution) for solution, *_ in solved]
    order = [(loss, -hit) if metric == "log_loss" else (-hit, loss) for loss, hit in judged]
    chosen = min(range(len(path)), key=lambda index: (order[index], index))
    coefs = torch.stack([solution[-1, :, :-1] for solution, *_ in solved])
    intercepts = torch.stack([solution[-1, :, -1] for solution, *_ in solved])
    weight, bias = frame.fold(coefs[chosen], intercepts[chosen], centred=not several)
    return Path(
        strengths=path,
        log_losses=tuple(loss for loss, _ in judged),
        accuracies=tuple(hit for _, hit in judged),
        objectives=tuple(float(objective.sum()) for _, objective, _, _ in solved),
        gaps=tuple(float(gap[-len(objective) :].max()) for _, objective, gap, _ in solved),
        iterations=tuple(count for *_, count in solved),
        metric=metric,
        chosen=chosen,
        held_out="validation rows" if jury.folds is None else f"{len(masses) - 1} folds",
        held_out_logits=jury.logits(solved[chosen][0]),
        weight=weight,
        bias=bias,
        coefs=coefs,
        intercepts=intercepts,
        frame=frame,
        several=several,
    )


def _one_by_one(
    scores: torch.Tensor, frame: Frame, targets: torch.Tensor, masses: torch.Tensor, positive: Sequence[float] | None
) -> Single:
    """Every label (N, K) as a problem of its own under each of the masses (P, N): P K problems, all labels of a mass
    beside each other.
    """
    yes = targets.T.float()  # (K, N)
    weights = torch.ones(len(yes)) if positive is None else torch.as_tensor(positive, dtype=torch.float32)
    of_label = 1 + yes * (weights.to(yes.device)[:, None] - 1)
    return Single(scores, frame.curvature, yes.repeat(len(masses), 1), (masses[:, None] * of_label).flatten(0, 1))


@dataclass(eq=False)
class _Jury:
    """The rows (M, r) that a strength is chosen on, with labels (M,), and folds (M,) where each is held out once."""

    scores: torch.Tensor
    labels: torch.Tensor
    folds: torch.Tensor | None = None

    def logits(self, solution: torch.Tensor) -> torch.Tensor:
        """(P, K, r+1) -> (M, K), each row by the problem that has not seen it."""
        if self.folds is None:
            return self.scores @ solution[-1, :, :-1].T + solution[-1, :, -1]
        out = self.scores.new_empty(len(self.scores), solution.shape[1])
        for fold, one in enumerate(solution[:-1]):
            rows = self.folds == fold
            out[rows] = self.scores[rows] @ one[:, :-1].T + one[:, -1]
        return out

    def score(self, solution: torch.Tensor) -> tuple[float, float]:
        """Log-loss and accuracy."""
        logits = self.logits(solution)
        if self.labels.ndim == 2:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                logits.double(), self.labels.double(), reduction="none"
            )
            return float(losses.sum(1).mean()), float(((logits >= 0) == (self.labels > 0)).double().mean())
        loss = torch.nn.functional.cross_entropy(logits.double(), self.labels)
        return float(loss), float((logits.argmax(1) == self.labels).double().mean())


def _checked(
    features: Any,
    labels: Any,
    num_classes: int,
    weights: Any | None,
    views: int,
    *,
    kind: str = "training",
    like: Any = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features (V·N, D) float32, labels (V·N,) and masses (V·N,), on one device; all mistakes at once."""
    rows = torch.as_tensor(features).detach()
    device = "cpu" if rows.device.type == "mps" else rows.device  # float64 is needed
    rows = rows.to(device=device if like is None else like.device, dtype=torch.float32)
    targets = _of_all_views(torch.as_tensor(labels).detach().long(), rows, views)
    mass = torch.ones(len(targets)) if weights is None else torch.as_tensor(weights).detach().float()
    mass = _of_all_views(mass, rows, views)
    found: list[str] = []
    if rows.ndim != 2 or (like is not None and rows.shape[1:] != like.shape[1:]):
        found.append(f"features must be (rows, features), not {tuple(rows.shape)}")
    several = targets.ndim == 2 and targets.shape[1] == num_classes
    if not (several or targets.ndim == 1) or len(targets) != len(rows) or len(rows) == 0:
        found.append(f"{len(rows)} rows of features do not go with {tuple(targets.shape)} labels in {views} view(s)")
    largest = 1 if several else num_classes - 1
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) <= largest:
        found.append(f"labels must be 0 to {largest}, found {int(targets.min())} to {int(targets.max())}")
    if kind == "training" and len(targets.unique()) < 2:
        found.append("rows of at least two classes are needed")
    sound = bool(torch.isfinite(mass).all()) and not bool((mass < 0).any()) and bool(mass.sum() > 0)
    if mass.shape != targets.shape[:1] or not sound:
        found.append("row weights must be finite, not negative, one a row, and not all zero")
    broken = _not_finite(rows.flatten(1)) if rows.ndim > 1 else []
    if broken:
        found.append(f"{len(broken)} row(s) hold features that are not finite numbers (first: {broken[:5]})")
    if found:
        raise TrainingError(
            f"cannot solve for the head on the {kind} rows",
            problems=[
                Problem(what, f"{kind} features", "the backbone's output on these rows is at fault") for what in found
            ],
        )
    return rows, targets, mass


def _not_finite(rows: torch.Tensor) -> list[int]:
    """Rows that hold NaN or infinities; sums, which take a twentieth of the time, say which to look at."""
    suspects = (~torch.isfinite(rows.sum(1))).nonzero().flatten()
    found: list[int] = suspects[(~torch.isfinite(rows[suspects])).any(1)].tolist()
    return found


def _of_all_views(values: torch.Tensor, rows: torch.Tensor, views: int) -> torch.Tensor:
    whole = values.repeat(views, *[1] * (values.ndim - 1)) if len(values) * views == len(rows) else values
    return whole.to(rows.device)


def _checked_strengths(strengths: Sequence[float] | None, metric: str) -> tuple[float, ...]:
    """From strong to weak, without repetition."""
    path = tuple(
        sorted({float(strength) for strength in (STRENGTHS if strengths is None else strengths)}, reverse=True)
    )
    if not path or not all(0 < strength < float("inf") for strength in path):
        raise TrainingError(f"strengths must be positive numbers, not {strengths}")
    if metric not in METRICS:
        raise TrainingError(f"the path is chosen by {' or '.join(METRICS)}, not by {metric!r}")
    return path


def _fold_numbers(targets: torch.Tensor, folds: int | Any) -> torch.Tensor:
    """The fold of every row (N,): as given, or dealt out within each class in a fixed shuffled order."""
    if not isinstance(folds, int):
        given = torch.as_tensor(folds).long()
        if given.shape != targets.shape[:1] or int(given.min()) < 0 or len(given.unique()) < 2:
            raise TrainingError("folds must be a number of folds, or the fold (0, 1, …) of every row")
        return given.unique(return_inverse=True)[1]
    count = min(folds, len(targets))
    if count < 2:
        raise TrainingError(f"cross-validation needs two folds and two rows, not {folds} folds of {len(targets)} rows")
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(len(targets)))
    if targets.ndim == 2:  # rows with the same labels are dealt out as those of a class are
        targets = targets.unique(dim=0, return_inverse=True)[1]
    order = shuffled[torch.argsort(targets.cpu()[shuffled], stable=True)]
    numbers = torch.empty(len(targets), dtype=torch.long)
    numbers[order] = torch.arange(len(targets)) % count
    return numbers
