"""Contrastive fine-tuning: its pairs, its loss, and its place beside the probe it is measured against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart.core.errors import ConfigError
from headstart.data.modalities import text
from headstart.engine import pairs
from headstart.measure.evaluation import Evaluation
from headstart.models import backbone as backbones
from headstart.models import heads
from headstart.models.model import Model
from headstart.stages.contrasting import Contraster
from headstart.stages.methods import contrastive

from .. import words

FEW = {"contrastive": {"epochs": 2, "lr": 1e-3, "pairs": 6}}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return words.network(tmp_path_factory.mktemp("reader"))


def fitted(folder: Path, reader: Path, plan: Any, **own: Any) -> Any:
    texts, labels = words.reviews(90, seed=4)
    quick = {"device": "cpu", "precision": "fp32", "output_dir": str(folder), "force": True, "baseline": False}
    rows = list(zip(texts, labels, strict=True))
    return headstart.fit(rows, backbone=str(reader), plan=plan, **{**quick, **own})


def stages(run: Any) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]


def test_half_of_every_rows_pairs_are_of_its_class() -> None:
    labels = np.array([0] * 5 + [1] * 3 + [2])
    rows, alike = pairs.draw(labels, 8, np.random.default_rng(0))
    assert rows.shape == (9 * 8, 2)
    assert (np.bincount(rows[:, 0]) == 8).all()
    assert alike.sum() == 9 * 4
    assert ((labels[rows[:, 0]] == labels[rows[:, 1]]) == (alike == 1)).all()
    itself = rows[:, 0] == rows[:, 1]
    assert set(rows[itself, 0]) == {8}, "only what is alone in its class is paired with itself"
    again, _ = pairs.draw(labels, 8, np.random.default_rng(0))
    assert (again == rows).all()
    one_class, same = pairs.draw(np.zeros(4, int), 4, np.random.default_rng(0))
    assert same.all()
    assert len(one_class) == 8


def test_the_loss_is_the_squared_distance_of_the_cosine(reader: Path) -> None:
    body = backbones.load(str(reader)).eval()
    model = Model(body, heads.build("linear", body.feature_dim, 3), words.CLASSES).eval()
    tokens = torch.from_numpy(body.spec.noise(6)).unflatten(0, (3, 2))
    targets = torch.tensor([1.0, 0.0, 1.0])
    with torch.no_grad():
        found = Contraster(model)(tokens, targets, 4.0)
        a, b = body.features(tokens[:, 0]), body.features(tokens[:, 1])
        cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
        rounded = Contraster(model, lambda: torch.autocast("cpu", dtype=torch.bfloat16))(tokens, targets, 4.0)
    assert found == pytest.approx(float(((cosine - targets) ** 2).sum() / 4), rel=1e-5)
    assert found != rounded == pytest.approx(float(found), rel=0.1), "it is not computed as the run is"
    assert rounded.dtype == torch.float32
    assert not Contraster(model.train()).finish().training


def test_it_is_measured_against_the_probe(reader: Path, tmp_path: Path) -> None:
    run = fitted(tmp_path, reader, ["probe", FEW])
    probe, drawn = stages(run)
    assert drawn["verdict"]["incumbent"] == "probe"
    assert drawn["updates"] == 2 * -(-77 * 6 // 16)
    assert "strengths" in json.dumps(drawn["probe"])
    values = [stage["metrics"]["val"]["accuracy"]["value"] for stage in (probe, drawn)]
    assert values[1] > values[0]
    assert run.read("result.json")["best"] == "contrastive"
    assert [row.label for row in headstart.load(run).predict(["it was superb and lovely", "awful and dull"])] == [
        "good",
        "bad",
    ]


def test_the_head_is_that_of_the_best_epoch_and_what_it_reached_is_what_the_saved_model_answers(
    reader: Path, tmp_path: Path
) -> None:
    texts, labels = words.reviews(90, seed=4)
    splits = {"train": list(zip(texts, labels, strict=True))[14:], "val": list(zip(texts, labels, strict=True))[:14]}
    fast = {"contrastive": {"epochs": 3, "lr": 5e-2, "pairs": 4, "schedule": "constant"}}  # it gets worse and worse
    options = {"device": "cpu", "precision": "bf16", "force": True, "baseline": False, "output_dir": str(tmp_path)}
    run = headstart.fit(splits, backbone=str(reader), plan=[fast], **options)
    (stage,) = stages(run)
    assert stage["best_epoch"] < 3, "the last epoch is the best: nothing is shown"
    assert [(layer["name"], layer["frozen"]) for layer in stage["layers"]][-1] == ("head", False)
    model = headstart.load(run).model
    inputs = torch.from_numpy(text.collate([text.decode(each, model.backbone.spec) for each in texts[:14]]))
    with torch.no_grad():
        answers = model(inputs).softmax(1)
    told = Evaluation.load(next(run.path.glob("stages/*/predictions.npz")))
    torch.testing.assert_close(torch.from_numpy(told.probabilities).float(), answers, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_bit_for_bit(
    reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.core.events import Progress
    from headstart.engine import loop

    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if isinstance(event, Progress) and event.task == "train" and event.done == 40:
            raise Stop

    whole = fitted(tmp_path / "a", reader, [FEW])
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Stop):
        fitted(tmp_path / "b", reader, [FEW], on_event=stop)
    again = fitted(tmp_path / "b", reader, [FEW], resume=True)
    first, second = ((each.model_folder / "model.safetensors").read_bytes() for each in (whole, again))
    assert first == second


def test_its_updates_count_pairs_and_its_head_is_linear(reader: Path, tmp_path: Path) -> None:
    stage = contrastive.Settings(pairs=20, batch_size=16)
    assert stage.updates(24) == 30
    assert stage.passes(24) == 960
    assert contrastive.Settings(pairs=20, batch_size=16, epochs=3).updates(24) == 90
    assert contrastive.Settings(pairs=20, batch_size=16, epochs=3).passes(24) == 3 * 960
    with pytest.raises(ConfigError, match="only a linear one"):
        fitted(tmp_path, reader, [FEW], head={"kind": "mlp"})
