"""Tables for people hold what they should, and cut off nothing."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from headstart import results, tables
from headstart.core.errors import Problem
from headstart.data.checks.findings import Finding
from headstart.measure.evaluation import Evaluation
from headstart.measure.prediction import Prediction, Predictions
from headstart.terminal import THEME


def shown(item: Any, width: int = 100) -> str:
    file = io.StringIO()
    console = Console(file=file, theme=THEME, width=width, force_terminal=False, no_color=True, highlight=False)
    item(console) if callable(item) else console.print(item)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def test_findings_come_gravest_first_with_remedies() -> None:
    found = [
        Finding("small", "info", "train", (), (), "small [class]", ""),
        Finding("leak", "error", "train+test", (1,), ("a.jpg",), "a.jpg is in both", "remove it from test"),
        Finding("imbalance", "warning", "", (), (), "ten to one", "class_weights=balanced"),
    ]
    told = shown(tables.findings(found, 120))
    assert [line.split()[0] for line in told.splitlines() if not line.startswith(" ")] == [
        "error",
        "warning",
        "info",
        "120",
    ]
    assert "remove it from test" in told
    assert "small [class] (train)" in told
    assert told.endswith("120 rows checked: 1 error, 1 warning; nothing was changed")


def test_counts_of_many_classes_show_the_largest() -> None:
    train = {f"class {index:03d}": index for index in range(100)}
    told = shown(tables.counts({"train": train, "val": dict.fromkeys(train, 1)}, {"train": 4000, "val": 100}))
    assert "class 099" in told
    assert "class 001" not in told
    assert "and 70 more" in told
    assert told.splitlines()[-1].split() == ["all", "4000", "100"], "rows, not labels: a row may have several"
    assert "more" not in shown(tables.counts({"train": {"b": 1, "a": 2}}, {"train": 3}))


def test_rows_of_several_labels_show_each_of_them() -> None:
    parts = [(np.arange(2), np.array([[0.9, 0.7, 0.1], [0.1, 0.2, 0.3]]), {2: "is no picture"})]
    found = Predictions.gather(("both", "none", "broken"), ("cat", "dog", "indoor"), parts, given_from=0.5)
    assert [row.labels for row in found] == [["cat", "dog"], [], []]
    told = shown(tables.predictions(found, 2)).splitlines()
    assert [line.split()[:5] for line in told[-3:]] == [
        ["both", "cat", "90.0", "%", "dog"],
        ["none", "no", "label"],
        ["broken", "is", "no", "picture"],
    ]


def test_labels_show_their_average_precision() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0], [0, 0]])
    answers = Evaluation("val", np.arange(4), np.array([[2.0, -1], [1, -1], [3, -1], [-1, -1]]), labels, ("cat", "dog"))
    told = shown(results.classes(answers.per_class())).splitlines()
    assert told[0].split()[-3:] == ["AP", "[95", "%]"]
    assert any(line.split()[0] == "dog" and line.split()[-1] == "–" for line in told), "no row, no precision"


def test_evaluations_show_every_number_with_its_interval() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = rng.normal(size=(60, 3)) + 2 * np.eye(3)[labels]
    evaluation = Evaluation("test", np.arange(60), logits, labels, ("ant", "bee", "[wasp]"))
    told = shown(results.evaluation(evaluation.metrics(), "test rows"))
    accuracy = evaluation.metric("accuracy")
    assert f"{100 * accuracy.value:.1f} %" in told
    assert f"{100 * accuracy.low:.1f} % – {100 * accuracy.high:.1f} %" in told
    told = shown(results.classes(evaluation.per_class()))
    assert all(name in told for name in evaluation.classes)
    assert told.count("%") >= 9


def test_a_class_without_rows_has_dashes_comes_last_and_is_told_where_it_was_answered() -> None:
    logits = np.eye(4)[[0, 0, 1, 2, 0]]
    answers = Evaluation("test", np.arange(5), logits, np.array([0, 0, 1, 1, 1]), ("ant", "bee", "cow", "dog"))
    lines = shown(results.classes(answers.per_class())).splitlines()
    assert [line.split() for line in lines[-3:-1]] == [["cow", "0", "–", "0.0", "%", "–"], ["dog", "0", "–", "–", "–"]]
    assert lines[-1] == "answered, and no row is of them, which macro F1 counts as 0: cow"
    assert answers.metric("macro_f1").value == pytest.approx((0.8 + 0.5 + 0) / 3), "and the line tells the truth"
    unanswered = Evaluation("test", np.arange(2), np.eye(4)[[0, 0]], np.array([0, 1]), ("ant", "bee", "cow", "dog"))
    lines = shown(results.classes(unanswered.per_class())).splitlines()
    bee = next(line for line in lines if line.startswith("bee"))
    assert bee.split()[-3:] == ["–", "0.0", "%"], "never answered: no precision"
    assert lines[-1].split()[0] == "dog"
    few = shown(results.classes(unanswered.per_class(), limit=1)).splitlines()
    assert few[-1].split() == ["and", "1", "better", "one", "and", "2", "without", "rows"]


def test_predictions_show_labels_and_problems() -> None:
    rows = [
        Prediction("a.jpg", (("ant", 0.75), ("bee", 0.25))),
        Prediction("b.jpg", problem="cannot be read [truncated]"),
    ]
    told = shown(tables.predictions(rows, 2))
    assert told.splitlines()[2].split() == ["a.jpg", "ant", "75.0", "%", "bee", "25.0", "%"]
    assert "cannot be read [truncated]" in told
    broken, header = told.splitlines()[3], told.splitlines()[0]
    assert broken.index("cannot") == header.index("problem"), "problems stand beside the labels, not among them"
    assert "problem" not in shown(tables.predictions(rows[:1], 2))


def test_predictions_of_texts_begin_with_the_text() -> None:
    long = "a film that was long\nand " + "very " * 40 + "good"
    rows = [
        Prediction("row 0", (("good", 0.75),), texts=(long,)),
        Prediction("row 1", (("bad", 0.5),), texts=("a", "b")),
    ]
    told = shown(tables.predictions([*rows, Prediction("row 2", problem="is empty")], 1))
    first, second, third = told.splitlines()[2:5]
    assert "a film that was long and very" in first
    assert "…" in first
    assert second.split() == ["row", "1", "a", "|", "b", "bad", "50.0", "%"]
    assert third.index("is empty") == told.splitlines()[0].index("problem")


@pytest.mark.parametrize("width", [80, 120])
def test_a_plan_shows_stages_blocks_and_what_speaks_against_it(width: int) -> None:
    def layers(*rates: float | str) -> tuple[SimpleNamespace, ...]:
        return tuple(
            SimpleNamespace(
                name=name, params=1500, lr=rate if isinstance(rate, float) else None, frozen=rate == "frozen"
            )
            for name, rate in zip(("stem", "block", "head"), rates, strict=True)
        )

    stage = SimpleNamespace(title="probe", trains="head", trainable=1500, cached=True, epochs=0, updates=0, seconds=2.0,
                            memory_mb=12.3, layers=layers("frozen", "frozen", "solved"))  # fmt: skip
    thaw = SimpleNamespace(**{**vars(stage), "title": "thaw-all", "trains": "everything", "cached": False, "epochs": 6,
                              "updates": 48, "layers": layers(1e-5, 1e-4, 1e-3)})  # fmt: skip
    table = SimpleNamespace(name="gradual", reason="", backbone="builtin/tiny", parameters=4500, train_rows=255,
                            stages=(stage, thaw), seconds=90.0,
                            problems=(Problem("too few updates", "thaw-all", "more epochs"),))  # fmt: skip
    told = shown(lambda console: tables.plan(table, console), width)
    assert max(len(line) for line in told.splitlines()) <= width
    assert "…" not in told
    rows = {line.split()[0]: line.split()[1:] for line in told.splitlines() if line}
    assert rows["stem"] == ["1.5", "k", "frozen", "1.0e-05"]
    assert rows["head"] == ["1.5", "k", "solved", "1.0e-03"]
    assert rows["thaw-all"][:1] == ["everything"]
    assert "48" in rows["thaw-all"]
    assert "thaw-all: too few updates" in told


def test_models_on_this_machine_come_first() -> None:
    entries = [
        SimpleNamespace(name=f"timm/net{index}", parameters=None, weights="x", local=index == 7) for index in range(50)
    ]
    told = shown(lambda console: tables.models(entries, console))
    assert told.splitlines()[2].split() == ["timm/net7", "here"]
    assert "more" not in told, "a log gets all of them"
    file = io.StringIO()
    tables.models(entries, Console(file=file, theme=THEME, force_terminal=True, width=80))
    assert "and 10 more" in file.getvalue()
