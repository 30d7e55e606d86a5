"""Exports of networks that read: any number of texts of any length, and answers without torch."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

import headstart
from headstart import verdicts
from headstart.core.run import Run
from headstart.data.modalities import text
from headstart.deploy import contract, folder, graph
from headstart.deploy.predictor import Predictor
from headstart.models import backbone as backbones
from headstart.terminal import THEME

from .. import words
from . import torchless
from .parity import differences, dimensions, lively

LONGEST = 64


def items(count: int) -> list[str | tuple[str, str]]:
    """Texts from one word to more than the network takes, every fifth a pair."""
    texts, _ = words.reviews(count, seed=3, longest=60)
    found: list[str | tuple[str, str]] = [
        (one, texts[row - 1]) if row % 5 == 0 else one for row, one in enumerate(texts)
    ]
    return [*found[:-3], "good", "the " * 200, ("bad", "the very dull room " * 40)]


@pytest.mark.parametrize("pooling", ["mean", pytest.param("cls", marks=pytest.mark.slow)])
def test_a_hundred_texts_are_answered_as_by_torch(pooling: str, reader: Path, tmp_path: Path) -> None:
    backbone = backbones.load(str(reader), pooling=pooling, max_length=LONGEST).eval()
    rows = [text.prepare(item, backbone.spec) for item in items(100)]
    assert {row.shape[1] for row in rows} >= {3, LONGEST}
    batches = [text.collate(rows[start : start + 7]) for start in range(0, 91, 7)]
    batches += [text.collate([row]) for row in rows[91:]]
    model = lively(backbone, batches, words.CLASSES)
    graph.write(model, tmp_path / "m.onnx")
    assert dimensions(tmp_path / "m.onnx") == ["rows", 2, "length"]
    changed, largest = differences(model, tmp_path / "m.onnx", batches)
    assert changed == 0
    assert largest <= 1e-4
    assert contract.read(tmp_path / "m.onnx") == graph.contract_of(model)
    made = onnx.load(tmp_path / "m.onnx")  # the planted fault: one token means something else
    table = next(tensor for tensor in made.graph.initializer if tensor.dims[:1] == [backbone.module.config.vocab_size])
    values = numpy_helper.to_array(table).copy()
    values[json.loads(words.tokenizer())["model"]["vocab"]["the"]] *= -1
    table.CopyFrom(numpy_helper.from_array(values, table.name))
    onnx.save(made, tmp_path / "other.onnx")
    assert differences(model, tmp_path / "other.onnx", batches)[1] > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("family", words.FAMILIES)
def test_a_thousand_texts_are_answered_as_by_torch(family: str, tmp_path: Path) -> None:
    backbone = backbones.load(str(words.network(tmp_path, family)), max_length=LONGEST).eval()
    rows = [text.prepare(item, backbone.spec) for item in items(1000)]
    batches = [text.collate(rows[start : start + 9]) for start in range(0, 1000, 9)]
    model = lively(backbone, batches[:10], words.CLASSES)
    graph.write(model, tmp_path / "m.onnx")
    changed, largest = differences(model, tmp_path / "m.onnx", batches)
    assert changed == 0
    assert largest <= 1e-4


def test_eight_bits_were_tried_and_every_variant_was_judged(text_run: Run) -> None:
    verdict = folder.read_verdict(text_run.path / "export")
    tried = [each for each in (*verdict["variants"], *verdict["gone"]) if each["file"] == folder.INT8]
    assert {each["name"] for each in tried} >= {"onnxruntime int8"}
    assert all(each["how"].startswith("matrix products in 8 bits") for each in tried)
    plain = next(each for each in verdict["variants"] if each["name"] == "onnxruntime fp32")
    assert plain["accepted"]
    assert plain["agreement"]["value"] == 1


PREDICT = """
import json
import headstart
model = headstart.load(sys.argv[1])
answers = [model.predict(each) for each in json.loads(sys.argv[2])]
print(json.dumps([[row.as_pipeline() for row in each] for each in answers]))
print(type(model).__name__, "torch" in sys.modules)
"""


def test_strings_and_tables_without_torch(text_run: Run, tmp_path: Path) -> None:
    texts = ["the film was superb and lovely", "it was awful and dull, the soup too", "usual"]
    (tmp_path / "new.csv").write_text("text,other\n" + "".join(f'"{one}",1\n' for one in texts), encoding="utf-8")
    given = [texts, str(tmp_path / "new.csv"), texts[0]]
    done = torchless.python(PREDICT, str(text_run.path / "export"), json.dumps(given))
    assert done.returncode == 0, done.stderr
    told, kind = done.stdout.splitlines()
    assert kind == "Predictor False"
    model = headstart.load(text_run)
    for source, answers in zip(given, json.loads(told), strict=True):
        wanted = model.predict(source)
        assert [row[0]["label"] for row in answers] == [row.label for row in wanted]
    done = torchless.command(
        "predict", str(text_run.path / "export"), str(tmp_path / "new.csv"), "--output", str(tmp_path / "found.csv")
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "found.csv", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == [row.label for row in model.predict(texts)]


def test_what_to_do_next_is_told_of_a_table(text_run: Run) -> None:
    place = text_run.path / "export"
    verdicts.show(place, console := Console(file=io.StringIO(), width=1000, theme=THEME))
    assert f"headstart predict {place} new.csv" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "headstart predict path/to/this/folder new.csv" in (place / "README.md").read_text()


def test_an_export_refuses_pairs_where_it_learned_texts(text_run: Run) -> None:
    done = torchless.command("predict", str(text_run.path / "export"), "the film was superb")
    assert done.returncode == 0, done.stderr
    single, pair = Predictor(text_run.path / "export", threads=1).predict(["usual", ("usual", "common")])
    assert single.scores
    assert (pair.scores, "[a-pair]" in pair.problem) == ((), True)


def test_the_plain_file_gives_the_probabilities_of_torch(text_run: Run) -> None:
    texts, _ = words.reviews(40, seed=8)
    predictor = Predictor(text_run.path / "export", variant="onnxruntime fp32", threads=1)
    found, wanted = predictor.predict([*texts, ""]), headstart.load(text_run).predict([*texts, ""])
    assert [each.label for each in found] == [each.label for each in wanted]
    assert found[-1].problem == wanted[-1].problem != ""
    scores = np.array([[dict(row.scores)[name] for name in words.CLASSES] for row in found[:-1]])
    assert np.allclose(scores, [[dict(row.scores)[name] for name in words.CLASSES] for row in wanted[:-1]], atol=1e-5)


def test_texts_of_like_length_share_a_batch(text_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["good film" if row % 2 else "the soup was very bad " * 8 for row in range(64)]
    predictor = Predictor(text_run.path / "export", variant="onnxruntime fp32", threads=1)
    widths: list[int] = []
    session = predictor._session

    def watched(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        widths.append(inputs.shape[2])
        return session(inputs)

    monkeypatch.setattr(predictor, "_session", watched)
    found = predictor.predict(texts)
    assert widths == [4, 4, 42, 42]
    alone = [predictor.predict([text])[0] for text in texts[:2]]
    for row, each in enumerate(found):
        assert dict(each.scores) == pytest.approx(dict(alone[row % 2].scores), abs=1e-5)
