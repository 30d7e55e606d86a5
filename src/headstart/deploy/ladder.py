"""The ladder of smaller files: which are tried, in which order, and how the layers that stay in float are found.

Each rung is written and judged; the first that is accepted ends the climb. Rows that calibrate and rows that measure
damage are training rows, and disjoint; validation rows judge, and nothing else.

Shapes: B rows, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headstart.deploy import folder
from headstart.deploy.quantise import Quantiser

CALIBRATION, HELD = 128, 96  # training rows
GOOD = 0.02  # of the logits' spread: damage below which decisions no longer change
MOST_LEFT = 0.5  # of the layers that may stay in float


@dataclass(frozen=True)
class Rung:
    """``kind`` is static, dynamic or half; ``ranges`` how activations are calibrated; ``weighted`` spares products of
    activations with each other; ``search`` leaves layers out."""

    how: str
    file: str
    kind: str
    ranges: str = ""
    weighted: bool = False
    search: bool = False


STATIC = "weights and activations in 8 bits"
NARROW = "weights in 7, since sums saturate here"
CONVOLUTIONAL = (
    Rung(f"{STATIC}, ranges from their extremes", folder.INT8, "static", "minmax"),
    Rung(f"{STATIC}, ranges of least divergence", folder.INT8, "static", "entropy"),
    Rung(f"{STATIC}, ranges without outliers", folder.INT8, "static", "percentile"),
    Rung(f"{STATIC}, sensitive layers in float", folder.INT8, "static", "minmax", search=True),
    Rung("weights in 16 bits", folder.HALF, "half"),
)
TRANSFORMER = (
    Rung("matrix products in 8 bits", folder.INT8, "static", "minmax", weighted=True),
    Rung("matrix products in 8 bits, ranges without outliers", folder.INT8, "static", "percentile", weighted=True),
    Rung("matrix products in 8 bits, activations measured as they come", folder.INT8, "dynamic"),
    Rung("matrix products in 8 bits, sensitive ones in float", folder.INT8, "dynamic", search=True),
    Rung("weights in 16 bits", folder.HALF, "half"),
)


@functools.cache
def saturates() -> bool:
    """Whether this processor adds two products of bytes in sixteen bits, which cannot hold 2 x 255 x 127."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    depth, most, weight = 4, 255, 127
    weights = numpy_helper.from_array(np.full((depth, 1), weight, np.int8), "weights")
    product = helper.make_node("MatMulInteger", ["bytes", "weights"], ["sums"])
    given = helper.make_tensor_value_info("bytes", TensorProto.UINT8, [1, depth])
    found = helper.make_tensor_value_info("sums", TensorProto.INT32, [1, 1])
    graph = helper.make_graph([product], "saturates", [given], [found], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (sums,) = session.run(None, {"bytes": np.full((1, depth), most, np.uint8)})
    return bool(sums.item() != depth * most * weight)


@dataclass
class Climber:
    """What writes rungs: the quantiser, and the training rows.

    Args:
        calibration: batches for the ranges.
        held: batches on which damage is measured.
        answer: logits (N, K) of a file on ``held``.
        heard: called with (layers tried, layers) while a search goes on.
        saturates: whether weights in seven bits are tried beside those in eight.
    """

    quantiser: Quantiser
    calibration: Sequence[np.ndarray]
    answer: Callable[[Path], np.ndarray]
    wanted: np.ndarray  # logits of the plain file on the same rows
    heard: Callable[[int, int], None]
    saturates: bool

    @property
    def rungs(self) -> tuple[Rung, ...]:
        return CONVOLUTIONAL if self.quantiser.convolutional else TRANSFORMER

    def write(self, rung: Rung, target: Path) -> str:
        """Write the file of a rung; what was done, in words."""
        if rung.ranges and not self.quantiser.calibrated(rung.ranges):
            self.quantiser.calibrate(rung.ranges, self.calibration)
        left = self._search(rung, target) if rung.search else ()
        narrow = self.saturates and rung.kind != "half" and self._narrower(rung, target, left)
        self._write(rung, target, left, narrow)
        how = f"{rung.how}: {len(left)} of {len(self.quantiser.layers)}" if rung.search else rung.how
        return f"{how}; {NARROW}" if narrow else how

    def damage(self, file: Path) -> float:
        """How far a file's logits are from the plain file's on the held rows, relative to their spread.

        Both are centred a row, so that what moves all classes alike, and changes no decision, does not count.
        """
        found, wanted = (values - values.mean(axis=1, keepdims=True) for values in (self.answer(file), self.wanted))
        return float(np.linalg.norm(found - wanted)) / max(1e-12, float(np.linalg.norm(wanted)))

    def _write(self, rung: Rung, target: Path, left: Sequence[str], narrow: bool) -> None:
        if rung.kind == "static":
            self.quantiser.write_static(target, rung.ranges, left=left, weighted=rung.weighted, narrow=narrow)
        elif rung.kind == "dynamic":
            self.quantiser.write_dynamic(target, left=left, narrow=narrow)
        else:
            self.quantiser.write_half(target)

    def _narrower(self, rung: Rung, target: Path, left: Sequence[str]) -> bool:
        """Whether weights in seven bits do less damage: a bit less in each, but no sum that saturates."""
        whole, narrow = (self._damage_without(rung, target, left, narrow) for narrow in (False, True))
        return narrow < whole

    def _search(self, rung: Rung, target: Path) -> tuple[str, ...]:
        """The layers that stay in float: those whose absence from the quantised file lowers the damage most.

        Each is left out alone, which ranks them; then 1, 2, 4 … of the first are left out together, until the damage is
        ``GOOD`` or half of the layers are out, and the set of least damage is taken.
        """
        layers = self.quantiser.layers
        alone = []
        for index, layer in enumerate(layers):
            alone.append(self._damage_without(rung, target, (layer,), self.saturates))
            self.heard(index + 1, len(layers))
        ranked = [layers[index] for index in np.argsort(alone, kind="stable")]
        best, least, count = (ranked[0],), min(alone), 2
        while least > GOOD and count <= MOST_LEFT * len(layers):
            left = tuple(ranked[:count])
            found = self._damage_without(rung, target, left, self.saturates)
            best, least = (left, found) if found < least else (best, least)
            count *= 2
        return best

    def _damage_without(self, rung: Rung, target: Path, left: Sequence[str], narrow: bool) -> float:
        self._write(rung, target, left, narrow)
        return self.damage(target)
