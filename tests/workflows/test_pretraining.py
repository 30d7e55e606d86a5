"""Continued pretraining as a stage: its own loss judges it, the backbone goes on, and what follows learns from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.core.errors import ConfigError, DataError, HeadstartError
from headstart.core.run import Run
from headstart.measure.intervals import paired_losses
from headstart.measure.restoring import Restoring

from .. import words

MLM = {"mlm": {"epochs": 6, "lr": 1e-2, "batch_size": 8}}
THAW = {"thaw": {"blocks": 1, "epochs": 1, "lr": 1e-3, "batch_size": 16}}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return words.network(tmp_path_factory.mktemp("reader"), kind="AutoModelForMaskedLM")


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str]]:
    rng, found = np.random.default_rng(2), []
    for row in range(150):
        kind = (words.BAD, words.GOOD, words.PLAIN)[row % 3]
        thing, first, second = rng.choice(words.THINGS), rng.choice(kind), rng.choice(kind)
        found.append((f"we found the {thing} very {first} and it was quite {second}", words.CLASSES[row % 3]))
    return found


def fitted(folder: Path, data: Any, reader: Path, plan: Any, **own: Any) -> Run:
    quick = {"device": "cpu", "precision": "fp32", "output_dir": str(folder), "force": True, "baseline": False}
    return headstart.fit(data, backbone=str(reader), plan=plan, **{**quick, **own})


def stages(run: Run) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(run.path.glob("stages/*/result.json"))]


def test_the_stage_is_judged_by_its_own_loss_and_the_backbone_goes_on(
    reader: Path, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    run = fitted(tmp_path, rows, reader, [MLM, "probe", THAW])
    first, probe, thaw = stages(run)
    assert first["verdict"]["decision"] == "keep"
    assert "clearly better than the backbone as it was" in first["verdict"]["reason"]
    assert first["metrics"]["val"]["masked_loss"]["value"] < first["before"]["masked_loss"]["value"] - 1.0
    assert first["before"]["masked_loss"]["value"] == pytest.approx(math.log(59), abs=0.1), "a random net knows a word"
    assert "accuracy" not in first["metrics"]["val"]
    assert probe["verdict"]["reason"] == "the first stage", "masked words were taken for a score of classes"
    assert thaw["verdict"]["incumbent"] == "probe"
    assert run.read("result.json")["best"] in ("probe", "thaw-1")
    plain = fitted(tmp_path, rows, reader, ["probe"], name="plain")
    assert stages(plain)[0]["metrics"] != probe["metrics"], "the features are those of the backbone before"
    assert "masked_loss" in (run.path / "report.html").read_text(encoding="utf-8")
    model = headstart.load(run)
    answers = model.predict([text for text, _ in rows])
    right = [answer.label == label for answer, (_, label) in zip(answers, rows, strict=True)]
    assert sum(right) > 0.9 * len(rows)


def test_what_makes_words_harder_to_restore_is_taken_back(
    reader: Path, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    # a rate at which nothing is learned, and the best epoch is worse than the start
    ruined = {"mlm": {"epochs": 1, "lr": 5.0, "batch_size": 16, "schedule": "constant", "clip": None}}
    run = fitted(tmp_path, rows, reader, [ruined, "probe"])
    plain = fitted(tmp_path, rows, reader, ["probe"], name="plain")
    assert stages(run)[0]["verdict"]["decision"] == "revert"
    one, other = ((each.model_folder / "model.safetensors").read_bytes() for each in (run, plain))
    assert one == other


def test_other_texts_and_an_interruption(
    reader: Path, rows: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.core.events import Progress
    from headstart.engine import loop

    texts, _ = words.reviews(140, seed=5)  # more than there are training rows
    (tmp_path / "more.txt").write_text("\ufeff" + "\n \n\n".join(texts) + "\n", encoding="utf-8")
    plan = [{"mlm": {**MLM["mlm"], "epochs": 2, "texts": str(tmp_path / "more.txt")}}, "probe"]
    events: list[Any] = []
    whole = fitted(tmp_path / "a", rows, reader, plan, on_event=events.append)
    assert stages(whole)[0]["texts"] == 140
    assert stages(whole)[0]["updates"] == 36
    assert "unreadable" not in {getattr(event, "kind", "") for event in events}, "a blank line is no text"

    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if isinstance(event, Progress) and event.task == "train" and event.done == 20:
            raise Stop

    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Stop):
        fitted(tmp_path / "b", rows, reader, plan, on_event=stop)
    again = fitted(tmp_path / "b", rows, reader, plan, resume=True)
    first, second = ((each.model_folder / "model.safetensors").read_bytes() for each in (whole, again))
    assert first == second


@pytest.mark.slow
def test_a_complete_stage_is_taken_as_it_is(
    reader: Path, rows: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.core.events import StageStarted

    class Stop(Exception):
        pass

    def stop(event: Any) -> None:
        if isinstance(event, StageStarted) and event.method == "probe":
            raise Stop

    with pytest.raises(Stop):
        fitted(tmp_path / "b", rows, reader, [MLM, "probe"], on_event=stop)
    started: list[str] = []
    again = fitted(
        tmp_path / "b",
        rows,
        reader,
        [MLM, "probe"],
        resume=True,
        on_event=lambda event: started.append(event.method) if isinstance(event, StageStarted) else None,
    )
    whole = fitted(tmp_path / "a", rows, reader, [MLM, "probe"])
    assert started == ["probe"]
    first, second = ((each.model_folder / "model.safetensors").read_bytes() for each in (whole, again))
    assert first == second


@pytest.mark.parametrize("folder", [False, True], ids=["a file", "a folder"])
def test_other_texts_under_the_same_name_are_another_run(
    folder: bool, reader: Path, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    place = tmp_path / ("texts" if folder else "texts.txt")
    file = place / "a.txt" if folder else place
    file.parent.mkdir(exist_ok=True)
    file.write_text("we found the film very good\nthe soup was bad\n", encoding="utf-8")
    plan = [{"mlm": {"texts": str(place), "epochs": 1, "batch_size": 2}}, "probe"]
    first = fitted(tmp_path, rows[:30], reader, plan)
    assert list(first.frame()["metric"]) == ["masked_loss", "accuracy"]
    assert "accuracy" in first._repr_html_()
    (file.parent / ".DS_Store").write_bytes(b"no text of anybody's")
    assert fitted(tmp_path, rows[:30], reader, plan).path == first.path
    file.write_text("we found the film very good\nthe soup was poor\n", encoding="utf-8")
    with pytest.raises(HeadstartError, match=r"differs in the texts of plan\[0\]"):
        fitted(tmp_path, rows[:30], reader, plan, resume=True)
    assert fitted(tmp_path, rows[:30], reader, plan).path != first.path


def test_pairs_are_no_texts_for_a_network_that_reads_single_ones(
    reader: Path, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / "pairs.csv").write_text("premise,hypothesis\nthe film,was good\n", encoding="utf-8")
    plan = [{"mlm": {"texts": str(tmp_path / "pairs.csv"), "epochs": 1}}, "probe"]
    with pytest.raises(DataError, match="no text to learn from: the first is a pair of texts"):
        fitted(tmp_path, rows[:30], reader, plan)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (["probe", "mlm"], "probe before it would no longer hold"),
        (["mlm"], "no stage learns the classes"),
        ([{"mlm": {"gate": {"on_fail": "stop"}}}, "probe"], "judged by its own loss"),
        ([{"mlm": {"mixup": 0.2}}, "probe"], "mixup"),
        ([{"mlm": {"share": 1.5}}, "probe"], "share"),
    ],
)
def test_plans_that_cannot_be_meant(
    plan: Any, told: str, reader: Path, rows: list[tuple[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        fitted(tmp_path, rows, reader, plan)


@pytest.mark.parametrize("name", ["more.txt", "texts"])
def test_a_guessed_encoding_is_said(reader: Path, rows: list[tuple[str, str]], tmp_path: Path, name: str) -> None:
    (tmp_path / "texts").mkdir()
    for index, (text, _) in enumerate(rows[:20]):
        (tmp_path / "texts" / f"{index}.txt").write_bytes(f"{text} café".encode("utf-8" if index else "cp1252"))
    (tmp_path / "more.txt").write_bytes("\n".join(f"{text} café" for text, _ in rows[:20]).encode("cp1252"))
    events: list[Any] = []
    plan = [{"mlm": {**MLM["mlm"], "epochs": 1, "texts": str(tmp_path / name)}}, "probe"]
    fitted(tmp_path / "runs", rows, reader, plan, on_event=events.append)
    (told,) = (event.message for event in events if getattr(event, "kind", "") == "guessed-encoding")
    assert told.endswith("(cp1252): 1 of its files")


def test_texts_that_cannot_be_read_are_left_out_aloud_and_a_share_is_taken(
    reader: Path, rows: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.workflows import pretraining

    shares: list[float] = []
    hide = pretraining.Masking
    monkeypatch.setattr(pretraining, "Masking", lambda told, share: shares.append(share) or hide(told, share))
    (tmp_path / "texts").mkdir()
    for index, (text, _) in enumerate(rows[:20]):
        (tmp_path / "texts" / f"{index}.txt").write_text(text if index > 1 else " ", encoding="utf-8")
    events: list[Any] = []
    plan = [{"mlm": {**MLM["mlm"], "epochs": 1, "share": 0.4, "texts": str(tmp_path / "texts")}}, "probe"]
    run = fitted(tmp_path / "runs", rows, reader, plan, on_event=events.append)
    assert stages(run)[0]["texts"] == 18
    (told,) = (event.message for event in events if getattr(event, "kind", "") == "unreadable")
    assert told.endswith("2 of 20 texts cannot be read and are left out")
    assert shares == [0.4]
    for file in (tmp_path / "texts").iterdir():
        file.write_text(" ", encoding="utf-8")
    with pytest.raises(DataError, match="no text to learn from"):
        fitted(tmp_path / "none", rows, reader, plan)


def test_losses_of_the_same_texts_are_compared_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    before = Restoring(rng.gamma(2.0, 1.0, 200))
    after = Restoring(before.losses - 0.1 + rng.normal(0, 0.05, 200))
    assert after.compare(before) == paired_losses(after.losses, before.losses)
    assert after.compare(before).significant
    assert before.metric().low < before.losses.mean() == before.metric().value < before.metric().high
    with pytest.raises(HeadstartError, match="200 and 199 texts do not pair"):
        after.compare(Restoring(before.losses[1:]))
