"""A check that the backbone sees pictures normalised as in its training; it warns and never swaps anything.

A wrong normalisation raises no error and costs a few to many points of accuracy. A handful of usual ones are compared
by what counts, a cross-validated probe on their features: first all of them on a few rows; the best of the others then
meets the declared one on more rows, and on more again, for as long as it promises a clearly lower loss. A finding needs
a paired difference of log-losses that chance explains in one case of a hundred, and no loss of accuracy.

What it cannot see: two normalisations whose features a probe separates equally well (mean and std 0.5 in place of
ImageNet's often is such a case), and networks that care little (SqueezeNet: none of those here hurts it clearly).

Shapes: N rows, B of a batch, C channels, H and W of a picture, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from headstart.data.splits import strata
from headstart.engine.streams import Examples, on_device
from headstart.measure.intervals import Difference, paired_losses
from headstart.models import resume
from headstart.models.backbone import Backbone
from headstart.stages.solver import solve_path

VERSION = 2  # raise it whenever the answer changes: answers of earlier runs are kept
MOST_CLASSES = 6  # the rows come from the largest classes: a small problem says more with few rows
FEWEST_A_CLASS = 4
LOOKS = (24, 96, 192)  # rows: all normalisations on the first, then the declared one and the best of the others
BATCH = 16
PROMISE = 0.1  # share of the loss that a challenger must save on the first rows to be looked at again
SIGNIFICANT = 0.01
STRENGTHS = tuple(float(10 ** (1 - step / 2)) for step in range(9))  # 10 … 1e-3
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

Features = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Normalisation:
    """(x / 255 - mean) / std, a number a channel each."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) to float."""
        mean, std = (torch.tensor(part, device=pictures.device).view(1, -1, 1, 1) for part in (self.mean, self.std))
        return (pictures.float() / 255 - mean) / std


@dataclass(frozen=True)
class Mismatch:
    """Another normalisation is clearly better than the declared one; ``difference`` is of log-losses, below zero."""

    declared: Normalisation
    better: Normalisation
    difference: Difference
    accuracies: tuple[float, float]  # declared, better
    message: str
    remedy: str


def candidates(mean: Iterable[float], std: Iterable[float]) -> tuple[Normalisation, ...]:
    """The declared one first, then the usual ones that differ from it."""
    declared = Normalisation("declared", tuple(map(float, mean)), tuple(map(float, std)))
    channels = len(declared.mean)
    usual = [
        Normalisation("mean and std 0.5", (0.5,) * channels, (0.5,) * channels),
        Normalisation("0 to 1", (0.0,) * channels, (1.0,) * channels),
        Normalisation("0 to 255", (0.0,) * channels, (1 / 255,) * channels),
    ]
    if channels == 3:
        usual.insert(0, Normalisation("ImageNet's mean and std", *IMAGENET))
    own = np.array([declared.mean, declared.std])
    return (declared, *(other for other in usual if not np.allclose(own, [other.mean, other.std], atol=0.01)))


def check(backbone: Backbone, examples: Examples) -> Mismatch | None:
    """Compare on at most 192 training rows; None where nothing clearly better is found, or too few rows are there.

    A copy that computes the backbone's features faster (``inference.Copies``) answers as the backbone does, in bf16
    too: all that is compared is rounded alike.
    """
    kinds = strata(examples.rows.labels)
    rows = sample(kinds)
    if len(rows) == 0:
        return None
    parts = list(examples.batches(rows, batch_size=BATCH))
    pictures = torch.cat([on_device(part.inputs, backbone.device) for part in parts])
    with resume.evaluating(backbone), torch.no_grad():
        return compare(backbone.features, pictures, kinds[rows], candidates(*_declared(backbone)))


def compare(
    features: Features, pictures: torch.Tensor, labels: np.ndarray, normalisations: tuple[Normalisation, ...]
) -> Mismatch | None:
    """Whether one of the ``normalisations`` beats the first; rows (N, C, H, W) uint8 with classes in turn (see sample).

    ``features`` maps a normalised float batch (B, C, H, W) to (B, D).
    """
    declared, *others = normalisations
    targets = torch.from_numpy(np.unique(labels, return_inverse=True)[1].astype(np.int64))
    first = LOOKS[0]
    few = {each: _extract(features, each, pictures[:first]) for each in normalisations}
    losses = {each: float(_probe(few[each], targets[:first])[0].mean()) for each in others if _finite(few[each])}
    if not losses:
        return None
    challenger = min(losses, key=lambda each: losses[each])
    to_beat = float(_probe(few[declared], targets[:first])[0].mean())
    pair = {declared: few[declared], challenger: few[challenger]}
    loss, other_loss = to_beat, losses[challenger]
    for before, rows in pairwise(LOOKS):
        if other_loss > (1 - PROMISE) * loss or len(targets) <= before:
            return None
        more = {each: _extract(features, each, pictures[before:rows]) for each in pair}
        if not all(map(_finite, more.values())):
            return None
        pair = {each: torch.cat([pair[each], more[each]]) for each in pair}
        (ours, hits), (theirs, other_hits) = (_probe(found, targets[:rows]) for found in pair.values())
        difference = paired_losses(theirs, ours)
        if difference.high < 0 and difference.p <= SIGNIFICANT and other_hits.mean() >= hits.mean():
            return _mismatch(declared, challenger, difference, (float(hits.mean()), float(other_hits.mean())))
        loss, other_loss = ours.mean(), theirs.mean()
    return None


def sample(labels: np.ndarray) -> np.ndarray:
    """Rows of the largest classes, one of each in turn, so that a beginning is balanced too; none where too few."""
    known, counts = np.unique(labels[labels >= 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_CLASSES]
    largest = known[order][counts[order] >= FEWEST_A_CLASS]
    if len(largest) < 2:
        return np.empty(0, dtype=np.int64)
    rng = np.random.default_rng(0)
    each = [rng.permutation(np.flatnonzero(labels == label))[: LOOKS[-1] // len(largest)] for label in largest]
    turns = [rows[turn] for turn in range(max(map(len, each))) for rows in each if turn < len(rows)]
    return np.array(turns if len(turns) >= LOOKS[0] else [], dtype=np.int64)


def _declared(backbone: Backbone) -> tuple[list[float], list[float]]:
    return backbone.intake.mean.flatten().tolist(), backbone.intake.std.flatten().tolist()


def _extract(features: Features, normalisation: Normalisation, pictures: torch.Tensor) -> torch.Tensor:
    """(N, D) float32."""
    parts = [features(normalisation.apply(part)).float() for part in pictures.split(BATCH)]
    return torch.cat(parts) if parts else torch.empty(0)


def _finite(features: torch.Tensor) -> bool:
    return bool(torch.isfinite(features).all())


def _probe(features: torch.Tensor, targets: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Log-loss (N,) float64 and hits (N,) bool of every row, out of fold."""
    path = solve_path(features, targets, None, None, int(targets.max()) + 1, strengths=STRENGTHS)
    logits = path.held_out_logits.double().cpu()
    losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    return losses.numpy(), (logits.argmax(1) == targets).numpy()


def _mismatch(
    declared: Normalisation, better: Normalisation, difference: Difference, accuracies: tuple[float, float]
) -> Mismatch:
    mean, std = (", ".join(f"{value:.4g}" for value in part) for part in (declared.mean, declared.std))
    return Mismatch(
        declared,
        better,
        difference,
        accuracies,
        message=(
            f"pictures normalised by {better.name} are told apart clearly better than by the declared normalisation "
            f"(mean {mean}; std {std}): accuracy {accuracies[1]:.3f} instead of {accuracies[0]:.3f} and log-loss "
            f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] in a probe of {difference.n} rows"
        ),
        remedy="nothing was changed: look up how the backbone was trained, and give it that mean and std",
    )
