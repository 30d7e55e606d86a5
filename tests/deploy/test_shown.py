"""What people see of an export: the table, the report, and answers that say "don't know"."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from headstart import cli, predictions, verdicts
from headstart.core import manifest
from headstart.core.errors import ArtefactError
from headstart.core.events import Notice
from headstart.core.run import Run
from headstart.deploy import folder, timing
from headstart.deploy.predictor import Predictor
from headstart.measure.prediction import Predictions
from headstart.report import contents, exports, page
from headstart.terminal import THEME
from headstart.workflows import ship


def shown(place: Path, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, theme=THEME)
    verdicts.show(place, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_fits_and_tells_every_variant(exported: Path) -> None:
    text = shown(exported)
    verdict = folder.read_verdict(exported)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert all(each["name"] in text for each in verdict["variants"])
    assert "✓ used" in text
    assert "too few to tell" in text
    assert f"{exported} new/" in " ".join(shown(exported, 1000).split())


def test_the_report_tells_the_verdict(toy_run: Run, exported: Path) -> None:
    table = exports.export_table(contents.read(toy_run))
    assert table is not None
    assert [row.verdict for row in table.rows].count("used") == 1
    assert 'id="exports"' in page.render(contents.read(toy_run))


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"metric": "accuracy", "accepted": 3}'])
def test_a_damaged_verdict_costs_the_report_nothing_else(
    damage: str, toy_run: Run, exported: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(toy_run.path, tmp_path / "run"))
    (run.path / "export" / "verdict.json").write_text(damage)
    assert 'id="exports"' not in page.render(contents.read(run))


def test_names_in_a_verdict_are_no_markup(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    run = Run(shutil.copytree(toy_run.path, tmp_path / "run"))
    verdict = manifest.read_json(run.path / "export" / "verdict.json")
    verdict["variants"][0]["name"] = verdict["variants"][0]["refused"] = "<script>alert(1)</script>\x1b[31m"
    manifest.write_json(run.path / "export" / "verdict.json", verdict)
    text = page.render(contents.read(run))
    assert "<script>alert" not in text
    assert "\x1b" not in text + shown(run.path / "export")


def test_what_is_not_sure_says_so(tmp_path: Path) -> None:
    shares = np.array([[0.9, 0.1], [0.4, 0.6]])
    found = Predictions.gather(
        ["a", "b", "c"], ["x", "y"], [(np.array([0, 1]), shares, {2: "no picture"})], threshold=0.7
    )
    assert [each.problem for each in found] == ["", "don't know: 0.600 is below 0.700", "no picture"]
    assert found[1].scores[0] == ("y", 0.6), "what it would have said stays to be seen"
    predictions.write(tmp_path / "p.csv", found, 1)
    with open(tmp_path / "p.csv", newline="") as file:
        assert [bool(row["problem"]) for row in csv.DictReader(file)] == [False, True, True]
    predictions.write(tmp_path / "p.jsonl", found, 2)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert ["problem" in line for line in lines] == [False, True, True]
    assert predictions.summary(found, Path("p")).startswith("2 predictions in p, 1 row could")


def test_the_threshold_of_an_export_is_used(toy_run: Run, exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    verdict = manifest.read_json(place / folder.VERDICT)
    for each in verdict["variants"]:
        each["threshold"] = {"wanted": 0.99, "value": 1.01, "precision": None, "coverage": 0.0}
    manifest.write_json(place / folder.VERDICT, verdict)
    manifest.seal(place)
    photos = str(toy_run.path.parents[1] / "photos" / "red")
    assert all(each.problem.startswith("don't know") for each in Predictor(place, threads=1).predict(photos))
    assert not any(each.problem for each in Predictor(exported, threads=1).predict(photos))


def test_the_command_exports(
    toy_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = timing.interleaved
    monkeypatch.setattr(timing, "interleaved", lambda calls, seconds: usual(calls, seconds=seconds / 100))
    run = shutil.copytree(toy_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    assert cli.run(["export", str(run), "--no-int8", "--threads", "1", "--precision", "0.9"], traceback=True) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "headstart predict" in shown
    verdict = folder.read_verdict(Path(run) / "export")
    used = next(each for each in verdict["variants"] if each["name"] == verdict["accepted"][0])
    assert (found := used["threshold"]["precision"])["value"] >= 0.9
    assert f"of {found['n']} rows" in shown
    assert "rows/s of 16" in shown


def test_the_command_predicts_with_the_variant_that_is_named(
    toy_run: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next((toy_run.path.parent.parent / "photos").rglob("*.png"))
    taken: list[str] = []
    usual = Predictor.predict

    def predict(self: Predictor, *args: object, **options: object) -> object:
        taken.append(self.name)
        return usual(self, *args, **options)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Predictor, "predict", predict)
        for place in (exported, exported.parent):  # of a run its export
            assert cli.run(["predict", str(place), str(picture), "--variant", "onnxruntime fp32"], traceback=True) == 0
    assert taken == ["onnxruntime fp32"] * 2
    assert cli.run(["predict", str(exported), str(picture), "--variant", "int7"]) == 1
    assert "known: onnxruntime fp32" in " ".join(capsys.readouterr().err.split())
    bare = shutil.copytree(toy_run.path, tmp_path / "bare", ignore=shutil.ignore_patterns("export"))
    assert cli.run(["predict", str(bare), str(picture), "--variant", "onnxruntime fp32"]) == 1
    told = "".join(capsys.readouterr().err.split())
    assert "onlyanexporthasvariants,andthereisnone" in told
    assert f"headstartexport{bare}" in told


@pytest.mark.parametrize(
    ("verb", "given", "remedy"),
    [
        ("predict", "export/model.onnx", "give the folder that holds it: {export}"),
        ("predict", "export", "headstart export {run}"),
        ("bench", "export", "such as {run}"),
        ("export", "export", "such as {run}"),
    ],
)
def test_what_is_given_wrongly_is_told_the_next_step(
    toy_run: Run, exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, given: str, remedy: str
) -> None:
    run = Path(shutil.copytree(toy_run.path, tmp_path / "run"))
    if (verb, given) == ("predict", "export"):
        shutil.rmtree(run / "export")
        (run / "export").mkdir()
    assert cli.run([verb, str(run / given), *["x.png"] * (verb == "predict")]) == 1
    wanted = remedy.format(run=run, export=run / "export")
    assert "".join(wanted.split()) in "".join(capsys.readouterr().err.split())


def test_a_damaged_export_is_to_be_exported_again(exported: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(exported, tmp_path / "export"))
    (place / folder.FLOAT).write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="export the run again"):
        Predictor(place)


def test_an_export_says_once_more_that_no_stage_beat_the_baseline(
    toy_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(shutil.copytree(toy_run.path, tmp_path / "run", ignore=shutil.ignore_patterns("export")))
    monkeypatch.setattr(Run, "beaten_by", property(lambda self: "pixels"))
    said: list[object] = []
    ship.export(run, settings=ship.Settings(threads=1, seconds=0.05, int8=False), on_event=said.append)
    assert [each.kind for each in said if isinstance(each, Notice)].count("beaten") == 1
