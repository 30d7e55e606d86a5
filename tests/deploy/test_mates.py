"""What a row is answered does not depend on who came with it: measured by hand, and in dynamic eight bits."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from headstart import verdicts
from headstart.core import manifest
from headstart.core.run import Run
from headstart.data.modalities import text
from headstart.data.reading.unlabelled import NOTHING
from headstart.deploy import folder, mates, timing
from headstart.deploy.ladder import TRANSFORMER, Rung
from headstart.deploy.predictor import Predictor, Variant
from headstart.deploy.quantise import Quantiser
from headstart.deploy.runtimes import onnxruntime
from headstart.deploy.serving.app import Service
from headstart.report import exports
from headstart.terminal import THEME
from headstart.workflows import bench, ship
from headstart.workflows.judging import Judge
from headstart.workflows.materials import Decoded
from headstart.workflows.predict import load

from .. import words
from .conftest import QUICK

INPUTS = np.arange(24, dtype=np.int32).reshape(4, 6) % 7
INPUTS[1, 4:] = -1


def softened(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    shares = np.stack([values, 1 - values], axis=1)
    return shares, shares


def steady(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return softened(np.where(inputs == -1, 0, inputs).sum(axis=1) / 100)


def ranged(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantised by the range of the whole batch."""
    values = np.where(inputs == -1, 0, inputs).mean(axis=1)
    step = max(1e-9, float(values.max())) / 255
    return softened((values / step).round() * step / 100)


def planned(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rounds otherwise in batches of four."""
    return softened(inputs.sum(axis=1) / 100 + 0.001 * (len(inputs) == 4))


def counting(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Averages over padding too."""
    return softened(np.where(inputs == -1, 0, inputs).sum(axis=1) / 100 / inputs.shape[1])


def test_what_a_batch_changes() -> None:
    assert mates.gap(steady, INPUTS, -1, longest=12) == 0
    assert mates.gap(ranged, INPUTS, -1, longest=12) > mates.SAME
    assert mates.gap(planned, INPUTS, None) > mates.SAME, "every size that a runtime may have a plan for is tried"
    assert mates.gap(counting, INPUTS, -1, longest=12) > mates.SAME
    assert mates.gap(counting, np.abs(INPUTS), None) == 0, "nothing is padded where all are of one size"
    assert mates.gap(counting, np.abs(INPUTS), -1, longest=6) == 0
    assert mates.gap(counting, np.abs(INPUTS), -1, longest=9) > mates.SAME, "a longer row may come"


@pytest.mark.parametrize("session", [ranged, counting])
def test_row_by_row_every_row_is_alone(session: Any) -> None:
    found = mates.row_by_row(session, -1)(INPUTS)
    rows = [INPUTS[:1], INPUTS[1:2, :4], INPUTS[2:3], INPUTS[3:]]
    for mine, theirs in zip(found, zip(*map(session, rows), strict=True), strict=True):
        assert np.array_equal(mine, np.concatenate(theirs))
    assert not np.allclose(found[1], session(INPUTS)[1], atol=mates.SAME)


def judge_in(place: Path, run: Run) -> tuple[Judge, Decoded]:
    model = load(run).model
    decoded = ship.rows_of(run, model, None, lambda event: None)
    return ship._judge(run, model, decoded, place, QUICK, lambda event: None), decoded


@pytest.fixture(scope="module")
def dynamic(text_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export that holds the plain file and one with dynamic ranges, whatever the clock says of it."""
    place = tmp_path_factory.mktemp("dynamic") / "export"
    place.mkdir()
    shutil.copy(text_run.path / "export" / folder.FLOAT, place)
    judge, decoded = judge_in(place, text_run)
    Quantiser(place / folder.FLOAT).write_dynamic(place / folder.INT8)
    judge = replace(judge, runtimes=("onnxruntime",))
    kept = [*judge.judge(folder.FLOAT, "plain"), *judge.judge(folder.INT8, "dynamic")]
    kept = [replace(each, fault="", refused="") for each in kept]
    ship._write(judge, decoded, kept, [], ["onnxruntime int8", "onnxruntime fp32"], NOTHING)
    return place


def told(place: Path, name: str) -> dict[str, Any]:
    return next(each for each in folder.read_verdict(place)["variants"] if each["name"] == name)


def probabilities(predictor: Predictor, texts: list[str]) -> np.ndarray:
    return np.array([[dict(row.scores)[name] for name in words.CLASSES] for row in predictor.predict(texts)])


def test_dynamic_ranges_make_an_answer_depend_on_its_batch(dynamic: Path) -> None:
    few, many = (onnxruntime.load(dynamic / folder.INT8, threads=threads) for threads in (1, mates.ROWS))
    spec = Predictor(dynamic, variant="onnxruntime fp32", threads=1).contract.spec
    texts, _ = words.reviews(20, seed=9, longest=40)
    inputs = text.collate([text.prepare(one, spec) for one in texts])
    assert mates.gap(few, inputs, text.PAD) > 100 * mates.SAME
    assert mates.gap(many, inputs, text.PAD) > 100 * mates.SAME, "also where every row has a thread of its own"
    assert Predictor(dynamic, variant="onnxruntime int8", threads=4).threads == 4, "as many as there are golden rows"
    assert mates.gap(onnxruntime.load(dynamic / folder.FLOAT, threads=1), inputs, text.PAD) < mates.SAME
    assert told(dynamic, "onnxruntime int8")["batches"] is False
    assert told(dynamic, "onnxruntime int8")["batch_gap"] > mates.SAME
    assert told(dynamic, "onnxruntime fp32")["batches"] is True


def test_predictions_do_not_depend_on_each_other(dynamic: Path, tmp_path: Path) -> None:
    texts, _ = words.reviews(20, seed=9, longest=40)
    predictor = Predictor(dynamic, variant="onnxruntime int8", threads=1)
    alone = np.concatenate([probabilities(predictor, [one]) for one in texts])
    assert np.array_equal(probabilities(predictor, texts), alone)
    assert np.array_equal(predictor.answer([predictor.prepare(one) for one in texts])[1], alone.astype(np.float32))
    verdict = manifest.read_json(dynamic / folder.VERDICT)  # the planted fault: a verdict that lets them go together
    faulty = Path(shutil.copytree(dynamic, tmp_path / "export"))
    for each in verdict["variants"]:
        each["batch_gap"] = 0.0
    manifest.write_json(faulty / folder.VERDICT, verdict)
    manifest.seal(faulty)
    together = Predictor(faulty, variant="onnxruntime int8", threads=1)
    assert np.abs(probabilities(together, texts) - alone).max() > mates.SAME


def test_a_precision_may_round_but_a_server_asks_for_one_row() -> None:
    """In 16 bits the rows of a folder go together where they move by the last bit at most."""
    coarse, fine = (Variant(folder.FLOAT, "openvino", precision, 0.0, 3e-4) for precision in ("bf16", "fp32"))
    assert coarse.batches
    assert not fine.batches
    assert not Variant(folder.FLOAT, "openvino", "bf16", 0.0, 5e-3).batches
    assert mates.allowed("bf16") > mates.SAME == mates.allowed("fp32")


def test_the_server_lets_nothing_of_it_go_together(dynamic: Path) -> None:
    facts = Service(Predictor(dynamic, variant="onnxruntime int8", threads=1)).facts
    assert facts.batch_rows == 1
    assert facts.batch_gap == told(dynamic, "onnxruntime int8")["batch_gap"]
    assert Service(Predictor(dynamic, variant="onnxruntime fp32", threads=1)).facts.batch_rows == mates.ROWS


def test_tables_tell_which_variants_answer_row_by_row(dynamic: Path) -> None:
    file = io.StringIO()
    verdicts.show(dynamic, Console(file=file, theme=THEME, width=200))
    (line,) = [line for line in file.getvalue().splitlines() if "every row is answered by itself" in line]
    assert line.startswith("onnxruntime int8: ")
    told = {line.split(" | ")[0]: line for line in (dynamic / folder.README).read_text().splitlines()}
    assert "rows by themselves" in told["| onnxruntime int8"]
    assert "rows by themselves" not in told["| onnxruntime fp32"]
    table = exports.export_table(SimpleNamespace(exported=folder.read_verdict(dynamic)))  # type: ignore[arg-type]
    assert table is not None
    reasons = {row.name: row.reason for row in table.rows}
    assert reasons["onnxruntime fp32"] == ""
    assert reasons["onnxruntime int8"] == "rows by themselves"


class Counted:
    """A session that notes how many rows it was given at a time."""

    def __init__(self, session: Any) -> None:
        self.session, self.sizes = session, []

    def __call__(self, inputs: np.ndarray) -> Any:
        self.sizes.append(len(inputs))
        return self.session(inputs)


def test_what_is_timed_and_scored_is_what_the_user_gets(
    text_run: Run, dynamic: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge, _ = judge_in(dynamic, text_run)
    timed: dict[str, set[int]] = {}
    sessions: list[Counted] = []

    def watched(calls: dict[str, Any], **own: Any) -> dict[str, timing.Timed]:
        for name, call in calls.items():
            before = [len(each.sizes) for each in sessions]
            call()
            made = [each.sizes[count:] for each, count in zip(sessions, before, strict=True)]
            timed.setdefault(name, set()).update(size for sizes in made for size in sizes)
        return dict.fromkeys(calls, timing.Timed(1.0, 1.0, (1.0,), 1))

    def opened(*given: Any) -> Counted:
        sessions.append(Counted(onnxruntime.load(dynamic / given[1].file, threads=1)))
        return sessions[-1]

    monkeypatch.setattr(timing, "interleaved", watched)
    monkeypatch.setattr("headstart.workflows.judging.open_session", opened)
    (found,) = replace(judge, runtimes=("onnxruntime",)).judge(folder.INT8, "dynamic")
    assert timed == {"onnxruntime fp32": {1, mates.ROWS}, "onnxruntime int8": {1}}
    session = onnxruntime.load(dynamic / folder.INT8, threads=1)
    alone = [session(batch.inputs)[0] for batch in judge.val.batches(np.arange(len(judge.val)), batch_size=1)]
    right = np.concatenate(alone).argmax(axis=1) == judge.val.rows.labels
    assert found.score.value == right.mean()
    candidates = bench.exported(dynamic, 1, lambda event: None)
    inputs = np.repeat(judge.golden.inputs, 4, axis=0)
    assert np.array_equal(candidates["onnxruntime int8"](inputs)[1], mates.row_by_row(session, text.PAD)(inputs)[1])


def test_the_rows_that_are_asked_are_the_longest_and_the_least_sure(text_run: Run, dynamic: Path) -> None:
    judge, _ = judge_in(dynamic, text_run)
    seen: list[np.ndarray] = []

    def session(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(inputs)
        return softened(np.zeros(len(inputs)))

    assert judge.batch_gap(session) == 0
    asked = {row.tobytes() for row in text.collate([each[0] for each in seen[:-1]])}
    sure = judge.reference.probabilities.max(axis=1)
    lengths = judge.val.store.lengths
    wanted = {*np.argsort(-lengths, kind="stable")[:4], *np.argsort(sure, kind="stable")[:8]}
    longest = max(lengths)
    for row in wanted:
        padded = text.collate([judge.val.store[row], np.zeros((2, longest), np.int32)])[0]
        assert padded.tobytes() in asked


@pytest.mark.parametrize(
    ("faults", "tried"),
    [
        (("time", "time"), ["static", "dynamic", "half"]),  # other ranges are no quicker
        (("time", "metric"), ["static", "static", "dynamic", "dynamic", "half"]),
        (("metric", "metric"), ["static", "static", "dynamic", "dynamic", "half"]),
    ],
)
def test_other_ranges_are_tried_unless_eight_bits_are_slow_everywhere(
    faults: tuple[str, str], tried: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Rung] = []

    def write(rung: Rung, target: Path) -> str:
        made.append(rung)
        target.touch()
        return rung.how

    def judged(file: str, how: str) -> list[Any]:
        return [SimpleNamespace(file=file, fault=fault, accepted=False) for fault in faults]

    monkeypatch.setattr(ship, "_climber", lambda judge, decoded: SimpleNamespace(rungs=TRANSFORMER, write=write))
    ship._climb(SimpleNamespace(place=tmp_path, judge=judged, emit=lambda event: None), None)  # type: ignore[arg-type]
    assert [rung.kind for rung in made] == tried
