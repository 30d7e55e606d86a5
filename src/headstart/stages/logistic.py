"""Logistic regression as the solver sees it: the frame in which it is solved, and the objective with its products.

Features are standardised and rotated once into the eigenbasis of their Gram matrix (of rows or of columns, whichever is
smaller), where a diagonal fits the Hessian well. The classes are few, so the products with the features are narrow: on
a CPU oneDNN computes them on a copy in the order that it wants (833 rows of 833 features, 7 classes, one core of a
processor of AMD: .19 ms, by MKL .29; 10,000 rows of 1,281, 10 classes, two cores: 5 ms and 14).

Shapes: N rows, D features, r rotated features (at most min(N, D)), K classes,
P problems on the same rows, solved side by side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headstart.models import kernels, threads

LARGEST_ROTATION = 4096  # an eigendecomposition of more than this costs more than it saves
# Rows of a square matrix up to which one thread finds its eigenvectors: two gain two fifths at best, and wait for each
# other at the end of every column, beside other work for 18 s instead of .6 (833 rows, two cores).
ALONE = 2048
LARGEST_COPY = 2**24  # numbers of a matrix that oneDNN gets in its own order
REORDER = "_reorder_linear_weight"


@dataclass(frozen=True, eq=False)
class Frame:
    """Where the problem is solved: ``((x - shift) / scale) @ basis``, a standardisation and an orthonormal rotation."""

    shift: torch.Tensor  # (D,) float64
    scale: torch.Tensor  # (D,) float64
    basis: torch.Tensor | None  # (D, r); None where no rotation pays
    curvature: torch.Tensor  # (r,) mean square of each rotated feature

    def rotate(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, r)."""
        standard = (features - self.shift.to(features.dtype)).div_(self.scale.to(features.dtype))
        return standard if self.basis is None else standard @ self.basis

    def fold(
        self, coefs: torch.Tensor, intercepts: torch.Tensor, *, centred: bool = True
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(K, r), (K,) -> weight (K, D) and bias (K,) on the features as given; ``centred`` biases sum to zero."""
        standard = coefs.double() if self.basis is None else coefs.double() @ self.basis.double().T
        weight = standard / self.scale
        bias = intercepts.double() - weight @ self.shift
        return weight.float(), (bias - bias.mean() if centred else bias).float()


def frame_of(rows: torch.Tensor) -> tuple[Frame, torch.Tensor]:
    """Standardise (a feature that hardly varies is not blown up to more than twice the usual) and rotate: the frame,
    and these rows (N, r) in it.

    The span of the rows is found from the smaller Gram matrix. Rotations from (D, D) are orthonormal whatever the
    rounding, so float32 is enough; those from (N, N) are not: float64 there, less directions below its precision.
    """
    count, dims = rows.shape
    shift = rows.mean(0, dtype=torch.float64)
    centred = rows - shift.float()
    scale = centred.square().mean(0, dtype=torch.float64).sqrt()
    varies = scale > 1e-7 * (shift.abs() + scale)
    floor = 0.5 * scale[varies].median() if varies.any() else scale.new_ones(())
    scale = torch.where(varies, scale.clamp_min(floor), 1e7 * (shift.abs() + scale + 1))
    standard = centred.div_(scale.float())  # in place: features of many rows are the largest thing in memory
    if min(count, dims) > LARGEST_ROTATION:
        return Frame(shift, scale, None, standard.square().mean(0)), standard
    if count < 0.75 * dims:
        wide = standard.double()
        squares, left = _eigen(wide @ wide.T)
        keep = squares > 1e-10 * squares[-1].clamp_min(1e-30)
        sizes = squares[keep].sqrt()
        basis = (wide.T @ (left[:, keep] / sizes)).float()
        scores = (left[:, keep] * sizes).float()
    else:
        squares, right = _eigen(standard.T @ standard)
        keep = squares > 1e-7 * squares[-1].clamp_min(1e-30)
        basis = right[:, keep].contiguous()
        scores = standard @ basis
    return Frame(shift, scale, basis, squares[keep].float() / count), scores


def _eigen(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with threads.set_to(1 if len(matrix) <= ALONE else None):
        values, vectors = torch.linalg.eigh(matrix)
    return values, vectors


class Narrow:
    """Products of a few rows (R, M) with one large matrix (M, N)."""

    def __init__(self, matrix: torch.Tensor, few: int) -> None:
        """``few`` is the number of rows to expect."""
        self.matrix = matrix
        self.by_onednn = matrix.device.type == "cpu" and all(map(kernels.fuses, ("_linear_pointwise", REORDER)))
        self.weight = matrix.T
        if self.by_onednn and matrix.numel() <= LARGEST_COPY:
            self.weight = getattr(torch.ops.mkldnn, REORDER)(matrix.T.contiguous(), few)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """(R, M) -> (R, N)."""
        if not self.by_onednn:
            return rows @ self.matrix
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, None, "none", [], "")
        return product


class Weighted:
    """P weighted problems on the same rotated features: objective, residuals, products with the features."""

    def __init__(
        self, scores: torch.Tensor, curvature: torch.Tensor, targets: torch.Tensor, mass: torch.Tensor, num_classes: int
    ) -> None:
        self.scores = torch.cat([scores, scores.new_ones(len(scores), 1)], 1)  # (N, r+1): the last weight is the bias
        self.curvature = torch.cat([curvature, curvature.new_ones(1)])  # (r+1,)
        self.penalised = torch.ones_like(self.curvature)
        self.penalised[-1] = 0
        self.targets = targets
        self.mass = (mass / mass.sum(1, keepdim=True).clamp_min(1e-30))[:, None]  # (P, 1, N), each problem's sums to 1
        self.index = targets.expand(len(mass), 1, -1)
        self.problems, self.classes = len(mass), num_classes
        few = self.problems * num_classes
        self._across, self._back = Narrow(self.scores.T, few), Narrow(self.scores, few)

    def start(self) -> torch.Tensor:
        """(P, K, r+1): no weights, the log of the class frequencies as bias (half a row for a class without rows)."""
        shares = torch.zeros(self.problems, self.classes, device=self.mass.device)
        shares.scatter_add_(1, self.index[:, 0], self.mass[:, 0])
        solution = self.scores.new_zeros(self.problems, self.classes, self.scores.shape[1])
        solution[:, :, -1] = shares.clamp_min(0.5 / len(self.targets)).log()
        return solution

    def margins(self, direction: torch.Tensor) -> torch.Tensor:
        """(P, K, r+1) -> (P, K, N): every class's logit less that of the true class."""
        logits = self._across(direction.flatten(0, 1)).view(self.problems, self.classes, -1)
        return logits - logits.gather(1, self.index)

    def residuals(self, margins: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probability less one-hot label (P, K, N), and the loss (P,), exact also where the label is almost certain."""
        peak = margins.amax(1, keepdim=True)  # at least 0: the true class's own margin
        others = (margins - peak).exp_().scatter_(1, self.index, 0)
        sum_others = others.sum(1, keepdim=True)
        total = sum_others + (-peak).exp()
        losses = peak + torch.log1p(sum_others + torch.expm1(-peak))
        residual = others.div_(total).scatter_(1, self.index, -sum_others / total)
        return residual, (losses * self.mass).sum((1, 2), dtype=torch.float64)

    def gradient(self, residual: torch.Tensor) -> torch.Tensor:
        """(P, K, N) -> (P, K, r+1), of the loss without the penalty."""
        return self._back((residual * self.mass).flatten(0, 1)).view(self.problems, self.classes, -1)


class Single(Weighted):
    """P weighted problems of a yes or no each, on the same rotated features: (P, 1, r+1) is a problem's one logit.

    A margin is the logit of the wrong answer, so that all that holds of the classes but the true one holds of it.
    """

    def __init__(
        self, scores: torch.Tensor, curvature: torch.Tensor, targets: torch.Tensor, mass: torch.Tensor
    ) -> None:
        """``targets`` (P, N) are 0 or 1, ``mass`` is (P, N)."""
        super().__init__(scores, curvature, targets[0].long(), mass, 1)
        self.signs = (1 - 2 * targets.float())[:, None]  # (P, 1, N): -1 where the answer is yes

    def start(self) -> torch.Tensor:
        """(P, 1, r+1): no weights, the logit of the share of yes as bias (half a row where there is none)."""
        shares = (self.mass * (self.signs < 0)).sum((1, 2))
        least = 0.5 / self.signs.shape[2]
        solution = self.scores.new_zeros(self.problems, 1, self.scores.shape[1])
        solution[:, 0, -1] = torch.logit(shares.clamp(least, 1 - least))
        return solution

    def margins(self, direction: torch.Tensor) -> torch.Tensor:
        """(P, 1, r+1) -> (P, 1, N)."""
        return self.signs * self._across(direction.flatten(0, 1))[:, None]

    def residuals(self, margins: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The probability of the wrong answer (P, 1, N), and the loss (P,)."""
        losses = torch.nn.functional.softplus(margins)
        return torch.sigmoid(margins), (losses * self.mass).sum((1, 2), dtype=torch.float64)

    def gradient(self, residual: torch.Tensor) -> torch.Tensor:
        """(P, 1, N) -> (P, 1, r+1), of the loss without the penalty."""
        return super().gradient(residual * self.signs)
