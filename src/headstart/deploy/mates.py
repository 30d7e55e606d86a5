"""Whether an answer depends on what else is in its batch, and how to answer where it does: every row by itself.

Activations whose range is taken while a network runs (dynamic quantisation) share one range with the whole batch, and
padding is not hidden from every network. What a row is answered must not depend on who came with it.

Shapes: B rows, T the last axis of a row, K classes.
"""

from __future__ import annotations

import numpy as np

from headstart.core import registry
from headstart.deploy import contract, parallel
from headstart.deploy.runtimes.base import Session

ROWS = 16  # that are answered at once at most
SIZES = (ROWS, 4, 1)  # of the batches that a runtime may have a plan for, each
SAME = 1e-5  # by how much a probability may depend on what else is in the batch
ROUNDING = {"bf16": 2**-8}  # of precisions that round more: the last bit of a probability


def allowed(precision: str) -> float:
    """By how much a probability may depend on its batch where many rows are predicted: the rounding of the precision.

    Who asks for one row at a time, as a server's clients do, is held to ``SAME``.
    """
    return ROUNDING.get(precision, SAME)


def padding(modality: str) -> int | None:
    """What stands where a row of a batch has ended; None where all rows are of one size."""
    return getattr(registry.find(contract.MODALITIES, modality), "PAD", None)


def gap(session: Session, inputs: np.ndarray, pad: int | None, longest: int = 0) -> float:
    """By how much a probability of rows ``inputs`` (B, …, T) in a batch differs from the same row's alone.

    Args:
        longest: T that a row among them may have; the batch is padded to it.
    """
    alone = row_by_row(session, pad)(inputs)[1]
    mates = inputs
    if pad is not None:  # as if a longer row were among them
        more = max(0, min(inputs.shape[-1], longest - inputs.shape[-1]))
        mates = np.concatenate([inputs, np.zeros_like(inputs[..., :more])], axis=-1)
        mates.reshape(len(inputs), -1, mates.shape[-1])[:, 0, inputs.shape[-1] :] = pad
    answer = parallel.together(session)
    orders = [np.arange(size) % len(inputs) for size in SIZES[:-1]]
    return max(float(np.abs(answer(mates[order])[1] - alone[order]).max()) for order in orders)


def row_by_row(session: Session, pad: int | None) -> Session:
    """A session that answers every row of a batch as if it had come alone, without padding."""

    def run(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [_trimmed(inputs[row : row + 1], pad) for row in range(len(inputs))]
        return parallel.joined(parallel.each(session, rows))

    return run


def _trimmed(row: np.ndarray, pad: int | None) -> np.ndarray:
    """One row (1, …, T) without its padding."""
    if pad is None:
        return row
    return row[..., : max(1, int((row.reshape(-1, row.shape[-1])[0] != pad).sum()))]
