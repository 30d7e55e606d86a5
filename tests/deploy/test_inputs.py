"""Odd pictures give networks the same bytes on every path: in training, by predict, and by an exported model.

Shapes: N rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.core.run import Run
from headstart.data import loaders
from headstart.data.modalities import image
from headstart.data.splits import Rows
from headstart.data.store import Store
from headstart.deploy.predictor import Predictor
from headstart.workflows.predict import load

from ..data import corpus


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The pictures of the corpus that can be read, and those that other formats than JPEG turn."""
    place = tmp_path_factory.mktemp("odd")
    built = corpus.build(place)
    turned = [place / f"turned{number}.{form}" for form in ("png", "webp") for number in range(1, 9)]
    for file in turned:
        file.write_bytes(corpus.oriented(int(file.stem[-1]), file.suffix[1:].upper()))
    return [*(str(built[case.kind]) for case in corpus.CASES if case.expected == "ok"), *map(str, turned)]


def trained(files: list[str], spec: Any) -> np.ndarray:
    """What a training step without chance is given (N, C, H, W)."""
    rows = Rows(files, np.zeros(len(files), np.int64), tuple(files))
    store = Store.build(rows, spec)
    order = np.arange(len(files))
    return np.concatenate(
        [batch.inputs for batch in loaders.batches(store, rows.labels, spec, batch_size=8, order=order)]
    )


def recorded(files: list[str], monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, predict: Any) -> np.ndarray:
    """What a model was given while it predicted."""
    seen: list[np.ndarray] = []
    before = getattr(owner, name)

    def watched(inputs: Any) -> Any:
        seen.append(np.asarray(inputs).copy())
        return before(inputs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, watched)
        found = predict(files)
    assert len(found) == len(files)
    assert not any(row.problem for row in found)
    return np.concatenate(seen)


def test_odd_pictures_are_the_same_input_on_every_path(
    toy_run: Run, exported: Path, odd: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(odd) >= 48
    classifier, predictor = load(toy_run), Predictor(exported, threads=1)
    spec = classifier.model.backbone.spec
    assert predictor.contract.spec == spec
    wanted = trained(odd, spec)
    assert wanted.dtype == np.uint8
    assert len(np.unique(wanted.reshape(len(odd), -1), axis=0)) > 10, "they are different pictures"
    paths = {
        "predict": recorded(odd, monkeypatch, classifier.model.backbone, "features", classifier.predict),
        "export": recorded(odd, monkeypatch, predictor, "_session", predictor.predict),
        "item by item": image.collate([predictor.prepare(file) for file in odd]),
        "bytes": image.collate([predictor.prepare(Path(file).read_bytes()) for file in odd]),
    }
    for name, given in paths.items():
        different = [Path(odd[row]).name for row in range(len(odd)) if not np.array_equal(given[row], wanted[row])]
        assert not different, f"{name}: {different}"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_the_comparison_notices_another_decoder(odd: list[str], exported: Path) -> None:
    """Planted: Pillow without the turn of the camera, without the colours of CMYK, resized at once."""
    from PIL import Image

    predictor = Predictor(exported, threads=1)
    spec = predictor.contract.spec
    different = 0
    for file in odd:
        with Image.open(file) as picture:
            naive = np.asarray(picture.convert("RGB").resize(spec.size[::-1]))
        own = predictor.prepare(file)
        assert own.shape == naive.shape
        different += not np.array_equal(naive, own)
    assert different > 30


def test_there_is_one_decoder(exported: Path) -> None:
    assert Predictor(exported, threads=1)._modality is image
