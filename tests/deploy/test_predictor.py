"""The predictor: the same answers as torch, in a process that cannot import torch."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.core import manifest
from headstart.core.errors import ArtefactError, ConfigError
from headstart.core.run import Run
from headstart.deploy import folder, predictor
from headstart.deploy.predictor import Predictor
from headstart.workflows import ship
from headstart.workflows.predict import load

from . import torchless
from .torchless import command as without_torch


def photos(run: Run) -> Path:
    return run.path.parents[1] / "photos"


def test_the_base_install_predicts(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    table = tmp_path / "found.csv"
    done = without_torch("predict", str(exported), str(photos(toy_run)), "--output", str(table))
    assert done.returncode == 0, done.stderr
    order = folder.read_verdict(exported)["accepted"]
    here = Predictor(exported, variant=next(name for name in order if name.startswith("onnxruntime")), threads=1)
    wanted = here.predict(str(photos(toy_run)))
    with open(table, newline="") as file:
        found = list(csv.DictReader(file))
    assert np.allclose([float(row["score"]) for row in found], [each.score for each in wanted], atol=2e-6)
    assert [row["label"] for row in found] == [each.label for each in load(toy_run).predict(str(photos(toy_run)))]


def test_the_plain_file_gives_the_probabilities_of_torch(toy_run: Run, exported: Path) -> None:
    found = Predictor(exported, variant="onnxruntime fp32", threads=1).predict(str(photos(toy_run)))
    wanted = load(toy_run).predict(str(photos(toy_run)))
    assert [each.label for each in found] == [each.label for each in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert dict(mine.scores) == pytest.approx(dict(theirs.scores), abs=1e-5)


def test_a_run_falls_back_to_its_export_where_torch_is_missing(toy_run: Run, exported: Path) -> None:
    done = without_torch("predict", str(toy_run.path), str(photos(toy_run) / "red"))
    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout


LOAD = """
import headstart
model = headstart.load(sys.argv[1])
print([row.label for row in model.predict(sys.argv[2], top_k=1)])
print([row.label for row in headstart.predict(sys.argv[1], sys.argv[2], top_k=1)])
print(type(model).__name__, "torch" in sys.modules)
"""


def test_load_gives_what_predicts_without_torch(toy_run: Run, exported: Path) -> None:
    wanted = headstart.load(toy_run).predict(str(photos(toy_run)), top_k=1)
    assert type(headstart.load(toy_run)).__name__ == "Classifier"
    for place in (exported, toy_run.path):
        done = torchless.python(LOAD, str(place), str(photos(toy_run)))
        assert done.returncode == 0, done.stderr
        labels = str([row.label for row in wanted])
        assert done.stdout.splitlines() == [labels, labels, "Predictor False"]
    here = headstart.predict(exported, str(photos(toy_run)), top_k=1)
    assert [(row.name, row.label, len(row.scores)) for row in here] == [(row.name, row.label, 1) for row in wanted]
    assert here[0].as_pipeline()[0].keys() == {"label", "score"}


def test_the_ban_would_notice_torch(toy_run: Run, tmp_path: Path) -> None:
    assert without_torch("embed", str(toy_run.path), str(photos(toy_run))).returncode == 1


def test_single_items_and_batches_agree(toy_run: Run, exported: Path) -> None:
    predictor = Predictor(exported, threads=1)
    files = sorted(str(file) for file in photos(toy_run).rglob("*.png"))[:5]
    values = [predictor.prepare(file) for file in files]
    logits, shares = predictor.answer(values)
    alone = np.concatenate([predictor.answer([value])[0] for value in values])
    assert np.allclose(logits, alone, rtol=1e-5, atol=1e-5)
    found = predictor.predict(files, top_k=1)
    assert [each.label for each in found] == [predictor.classes[i] for i in shares.argmax(axis=1)]


def test_rows_that_come_in_chunks_keep_their_places(
    toy_run: Run, exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Eleven files in chunks of four, one of the second chunk and one of the third unreadable."""
    for number, file in enumerate(sorted(photos(toy_run).rglob("00[0-3].png"))[:11]):
        shutil.copy(file, tmp_path / f"{number:02d}.png")
    for number in (5, 9):
        (tmp_path / f"{number:02d}.png").write_bytes(b"no picture")
    model = Predictor(exported, threads=1)
    whole = model.predict(str(tmp_path))
    assert [row.label for row in whole] == ["dark"] * 4 + ["red", "", "red", "red"] + ["stripes", "", "stripes"]
    monkeypatch.setattr(predictor, "CHUNK", 4)
    parts = model.predict(str(tmp_path))
    assert [(row.name, row.label, row.problem) for row in parts] == [
        (row.name, row.label, row.problem) for row in whole
    ]
    assert [bool(row.problem) for row in parts] == [number in (5, 9) for number in range(11)]


def test_where_a_runtime_refuses_the_file_the_next_variant_answers(
    exported: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As one does that is older than the runtime of the export."""
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    verdict = manifest.read_json(place / folder.VERDICT)
    first, second = (each["name"] for each in verdict["variants"][:2])
    manifest.write_json(place / folder.VERDICT, verdict | {"accepted": [first, second]})
    manifest.seal(place)
    usual, refused = predictor.open_session, [first]

    def opened(place: Path, variant: predictor.Variant, threads: int) -> Any:
        if variant.name in refused:
            raise ArtefactError("the runtime refuses the file", where=variant.file)
        return usual(place, variant, threads)

    monkeypatch.setattr(predictor, "open_session", opened)
    said: list[Any] = []
    assert predictor.Predictor(place, on_event=said.append).name == second
    assert f"'{second}' is what can run here" in said[0].message
    with pytest.raises(ArtefactError, match="refuses the file"):
        predictor.Predictor(place, variant=first)
    refused.append(second)
    with pytest.raises(ArtefactError, match="refuses the file"):
        predictor.Predictor(place)


@pytest.mark.parametrize("file", [folder.VERDICT, folder.GOLDEN, manifest.MANIFEST])
def test_an_export_that_lacks_a_file_is_damaged_and_not_none(exported: Path, tmp_path: Path, file: str) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    (place / file).unlink()
    with pytest.raises(ArtefactError, match=file) as told:
        headstart.load(place)
    assert "export the run again" in str(told.value)


def test_what_an_export_cannot_do_is_said(exported: Path) -> None:
    with pytest.raises(ConfigError, match="runs on the CPU, not on cuda"):
        headstart.load(exported, device="cuda")
    with pytest.raises(ArtefactError, match="holds no network") as told:
        headstart.embed(exported, "x.png")
    assert str(exported.parent) in str(told.value)


def test_a_file_of_another_exporter_makes_no_export(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(toy_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("export")))
    shutil.copy(exported / folder.FLOAT, place / "model" / folder.FLOAT)
    assert headstart.load(place).classes == headstart.load(exported).classes
    own = place / folder.EXPORT / folder.FLOAT
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with pytest.raises(ArtefactError, match="holds no export"):
        ship.export(Run(place))
    assert own.read_bytes() == b"mine"


def test_the_column_that_the_run_learned_from_goes_with_the_export(exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    verdict = manifest.read_json(place / folder.VERDICT)
    assert verdict["input_column"] is None
    manifest.write_json(place / folder.VERDICT, verdict | {"input_column": "shot"})
    manifest.seal(place)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text("path,shot\nb.png,a.png\n,nope.png\n", encoding="utf-8")
    there, missing = headstart.load(place).predict(tmp_path / "t.csv")
    assert there.label
    assert not missing.scores
    assert "nope.png does not exist [missing]" in missing.problem


def test_golden_rows_whose_answers_are_no_numbers_are_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.Golden, "gap", lambda self, logits: float("nan"))
    with pytest.raises(ArtefactError, match="answers differently here"):
        Predictor(exported)
