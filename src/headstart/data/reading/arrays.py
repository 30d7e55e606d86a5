"""Arrays as rows: pictures as they are, samples of sounds with their rate.

Shapes: N rows, H height, W width, C channels, T samples, A channels of a sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.core.errors import DataError
from headstart.data.reading.tables import as_list

if TYPE_CHECKING:
    from headstart.data.settings import DataSettings

_CHECKED_ROWS = 4096


def as_pictures(inputs: Any, source: str, notes: list[str]) -> Sequence[Any]:
    """Arrays or tensors (N, H, W[, C]) as such, channels last; lists, series and arrays of paths as a list.

    Raises:
        DataError: the shape is no picture's, or values are negative or not finite (normalised already?).
    """
    if hasattr(inputs, "detach"):
        inputs = inputs.detach().cpu().numpy()
    if not isinstance(inputs, np.ndarray) or inputs.dtype.kind in "OUST":
        return as_list(inputs)
    if inputs.ndim not in (3, 4):
        remedy = "pictures are (N, H, W) or (N, H, W, C); of sounds (N, T), say sampling_rate=16_000"
        raise DataError(f"an array of shape {inputs.shape} holds no pictures", where=source, remedy=remedy)
    if inputs.dtype.kind not in "buif":
        raise DataError(f"an array of {inputs.dtype} holds no pictures", where=source)
    if inputs.ndim == 4 and inputs.shape[1] in (1, 3, 4) and inputs.shape[3] not in (1, 3, 4):
        notes.append(f"the array of shape {inputs.shape} was taken as channels first (N, C, H, W)")
        inputs = np.moveaxis(inputs, 1, 3)
    for start in range(0, len(inputs), _CHECKED_ROWS):
        part = inputs[start : start + _CHECKED_ROWS]
        if part.dtype.kind in "if" and not (part >= 0).all():  # NaN compares false too
            row = start + int(np.flatnonzero(~(part >= 0).reshape(len(part), -1).all(axis=1))[0])
            raise DataError(
                f"row {row} has negative values or NaN",
                where=source,
                remedy="give pictures as they are (0..255 or 0..1): the backbone's own normalisation is applied",
            )
    return inputs


def with_rate(inputs: Any, source: str, settings: DataSettings) -> Any:
    """Samples as arrays (T,) or (T, A) with their rate; anything else as it is.

    Raises:
        DataError: rows (T,), which can only be samples, and no rate is given.
    """
    rate, first = settings.sampling_rate, next(iter(inputs), None) if hasattr(inputs, "__len__") else None
    shape = tuple(getattr(first, "shape", ()))
    axes = len(shape)
    if axes == 1 and rate is None and not hasattr(inputs, "shape"):
        remedy = "of sounds, say how many samples are a second: sampling_rate=16_000; or give rows (samples, rate)"
        raise DataError(
            f"a row is an array {shape}: no picture, and samples without a rate", where=source, remedy=remedy
        )
    return inputs if rate is None or axes not in (1, 2) else [(row, rate) for row in inputs]
