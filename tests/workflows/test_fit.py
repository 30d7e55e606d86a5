"""fit, end to end on toys: what a run leaves behind, how it is continued, what it refuses, what it never touches."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart.core import manifest
from headstart.core.errors import ArtefactError, ConfigError, TrainingError
from headstart.core.events import Decision, EpochDone, Notice, Phase, Progress, StageDone, StageStarted
from headstart.core.run import Run
from headstart.data.splits import Rows, Splits
from headstart.engine import loop
from headstart.measure.evaluation import Evaluation
from headstart.models import merging
from headstart.stages import gates
from headstart.workflows import places, preflight

SHORT: dict[str, Any] = {"epochs": 2, "batch_size": 16, "gate": {"on_fail": "warn"}}
CACHED: dict[str, Any] = {"thaw": {**SHORT, "name": "last", "blocks": 1, "views": 1, "augment": "none"}}
LIVE: dict[str, Any] = {"thaw": {**SHORT, "name": "all", "blocks": "all", "augment": "light"}}
PLAN = ["probe", CACHED, LIVE]
STAGES = ["00-probe", "01-last", "02-all"]


def with_test_rows(pictures: Any) -> dict[str, Any]:
    return {"train": pictures(36), "val": pictures(18, 1), "test": pictures(15, 2)}


def fields(result: dict[str, Any], *names: str) -> None:
    missing = [name for name in names if name not in result]
    assert not missing, missing


def test_a_run_leaves_a_complete_folder(fit, pictures):
    run = fit(with_test_rows(pictures), PLAN, baseline=True)
    files = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    wanted = {
        "experiment.yaml",
        "environment.json",
        "identity.json",
        "data.json",
        "rows.json",
        "events.jsonl",
        "decisions.json",
        "choices.json",
        "baseline/result.json",
        "result.json",
        "predictions-test.npz",
        "report.html",
        "test_reads.json",
        *(f"stages/{stage}/{name}" for stage in STAGES for name in ("result.json", "predictions.npz", "manifest.json")),
        *(f"stages/{stage}/state/model.safetensors" for stage in STAGES),
        *(f"model/{name}" for name in ("model.safetensors", "headstart.json", "labels.json", "preprocess.json")),
        *(f"model/{name}" for name in ("golden.npz", "README.md", "manifest.json")),
    }
    assert wanted <= files, wanted - files
    assert [path for path in files if "tmp" in path or "step-" in path] == []
    assert any(path.startswith("previews/network-") for path in files)
    for folder in (run.path / "stages").iterdir():
        manifest.check(folder)


@pytest.mark.filterwarnings("ignore:of .* rows the model has learned")
@pytest.mark.parametrize("bn", ["frozen_eval", "train"])
def test_what_a_stage_reports_is_what_its_saved_model_answers(fit, pictures, bn, monkeypatch):
    """BatchNorm is merged while it is judged, and is not in the file."""
    monkeypatch.setattr(merging, "WORTH", 0.0)
    stage = {"thaw": {**SHORT, "name": "all", "blocks": "all", "bn": bn, "lr": 1e-2}}
    run = fit(with_test_rows(pictures), [stage], backbone="builtin/image")
    assert any(event.topic == "batch norm" for event in fit.said(Decision))
    stored = Evaluation.load(run.path / "stages" / "00-all" / "predictions.npz")
    found = headstart.evaluate(run, pictures(18, 1))
    np.testing.assert_array_equal(stored.labels, found.labels)
    temperature = run.read("result.json")["temperature"]
    np.testing.assert_allclose(stored.logits / temperature, found.logits, rtol=1e-5, atol=1e-5)


def test_everything_is_on_by_default(pictures, tmp_path):
    """Nothing but the data, the backbone and the place is said: precision is measured, baselines and checks run."""
    said: list[Any] = []
    own = {"backbone": "builtin/tiny", "image_size": 32, "output_dir": str(tmp_path)}
    run = headstart.fit(pictures(200), **own, plan="probe", on_event=said.append)
    assert run.read("choices.json")["precision"] in ("fp32", "bf16")
    assert {getattr(event, "name", "") for event in said} >= {"baseline", "normalisation", "precision", "audit"}
    assert run.stages()[0]["metrics"]["val"]["accuracy"]["value"] == 1.0


def test_what_the_files_of_a_run_say(fit, pictures):
    run = fit(with_test_rows(pictures), PLAN, baseline=True)
    data = run.read("data.json")
    fields(data, "source", "modality", "classes", "counts", "fingerprint", "notes", "audit")
    assert data["counts"]["train"] == {"dark": 12, "red": 12, "stripes": 12}
    assert {split: len(names) for split, names in run.read("rows.json").items()} == {"train": 36, "val": 18, "test": 15}
    fields(run.read("environment.json"), "python", "platform", "cpu", "threads", "packages", "device")
    for index, stage in enumerate(run.stages()):
        fields(stage, "method", "settings", "trainable", "parameters", "frozen_blocks", "blocks", "seconds", "cache")
        assert stage["index"] == index
        assert stage["metrics"]["val"]["accuracy"]["n"] == 18
        fields(stage["verdict"], "decision", "reason", "metric", "difference", "incumbent")
        for layer in stage["layers"]:
            assert (layer["lr"] is None) == (layer["frozen"] or stage["method"] == "probe")
    probe, cached, live = run.stages()
    assert (probe["frozen_blocks"], cached["frozen_blocks"], live["frozen_blocks"]) == (4, 3, 0)
    assert (cached["updates"], cached["epochs"]) == (6, 2)
    assert cached["cache"]["used"]
    assert not live["cache"]["used"]
    fields(probe["probe"], "strengths", "chosen")
    result = run.read("result.json")
    fields(result, "best", "temperature", "calibration", "seconds", "phases", "test_reads", "optimistic")
    assert result["metrics"]["test"]["accuracy"]["n"] == 15
    assert not result["optimistic"]
    stored = Evaluation.load(run.path / "predictions-test.npz")
    assert result["metrics"]["test"]["accuracy"]["value"] == stored.metric("accuracy").value
    assert {row["name"] for row in run.read("baseline/result.json")} >= {"majority"}
    assert [each["name"] for each in result["baselines"]] == ["pixels", "majority"], "the best on validation rows first"
    for each in result["baselines"]:
        answers = Evaluation.load(run.path / "baseline" / "test" / f"{each['name']}.npz", expected=stored.rows)
        assert np.array_equal(answers.labels, stored.labels)
        assert each["metrics"]["accuracy"]["value"] == answers.metric("accuracy").value
        gain = result["metrics"]["test"]["accuracy"]["value"] - each["metrics"]["accuracy"]["value"]
        assert each["gain"]["value"] == pytest.approx(gain)
    assert [event["event"] for event in run.events()].count("StageDone") == 3


def test_a_mistake_of_several_stages_is_told_once_with_its_places(fit, pictures):
    def bad(canvas, rng):
        raise ValueError("no such picture")

    with pytest.raises(ConfigError) as caught:
        fit(pictures(), ["probe", {"thaw": {"augment": bad}}, {"thaw": {"augment": bad, "name": "more", "blocks": 99}}])
    told = {problem.where: problem.what for problem in caught.value.problems}
    assert "no such picture" in told.pop("plan[1].thaw-all.augment, plan[2].more.augment")
    assert list(told) == ["plan[2].more.blocks"], "and what differs stands for itself"


def test_what_the_user_wrote_is_tried_before_the_first_stage(fit, pictures):
    def bad(canvas, rng):
        raise ValueError("no such picture")

    def odd(canvas, rng):
        return canvas["picture"]

    plan = ["probe", {"thaw": {**SHORT, "augment": bad}}, {"thaw": {**SHORT, "name": "odd", "augment": odd}}]
    with pytest.raises(ConfigError) as caught:
        fit(pictures(), plan)
    told = {problem.where: problem.what for problem in caught.value.problems}
    assert "no such picture" in told["plan[1].thaw-all.augment"]
    assert "'odd' fails: IndexError" in told["plan[2].odd.augment"]
    assert not fit.said(StageStarted)
    asked: list[tuple[Any, Any]] = []

    def broken(labels, probabilities):
        asked.append((labels, probabilities))
        raise KeyError("no such thing")

    with pytest.raises(ConfigError, match="the metric 'broken' fails: KeyError"):
        fit(pictures(), metric=broken)
    ((labels, probabilities),) = asked
    assert probabilities.shape == (len(labels), 3)
    assert probabilities.sum(1) == pytest.approx(np.ones(len(labels)))
    assert not {event.name for event in fit.said(Phase)} & {"decode", "baseline"}

    def sure(labels, probabilities):
        high = probabilities.max(1) > 0.9
        return float((probabilities.argmax(1) == labels)[high].mean()) if high.any() else float("nan")

    assert fit(pictures(), metric=sure).read("result.json")["metrics"]["val"]["sure"]["value"] == 1.0


def test_a_changed_function_is_another_experiment(fit, pictures):
    def metric(value):
        def mine(labels, probabilities):
            return value

        return mine

    def turning(step):
        return lambda canvas, rng: canvas[:, ::step]

    rows = pictures()
    first = fit(rows, metric=metric(0.3))
    assert fit(rows, metric=metric(0.3)).path == first.path
    other = fit(rows, metric=metric(0.7))
    assert other.path != first.path
    assert [run.frame().iloc[-1]["mine"] for run in (first, other)] == [0.3, 0.7]
    plan = ["probe", {"thaw": {**SHORT, "augment": turning(1)}}]
    turned = fit(rows, plan)
    assert fit(rows, plan).path == turned.path
    plan = ["probe", {"thaw": {**SHORT, "augment": turning(-1)}}]
    with pytest.raises(ArtefactError, match=r"differs in the code of plan\.1\.thaw\.augment"):
        fit(rows, plan, resume=True)
    assert fit(rows, plan).path not in (first.path, other.path, turned.path)


def test_baselines_are_learnt_once_and_again_where_a_run_goes_on(fit, pictures, monkeypatch):
    from headstart.engine import baseline

    learnt, learn = [], baseline.baselines
    monkeypatch.setattr(baseline, "baselines", lambda *given: learnt.append(1) or learn(*given))
    rows = with_test_rows(pictures)
    whole = fit(rows, PLAN, baseline=True)
    assert len(learnt) == 1
    (whole.path / "result.json").unlink()
    again = fit(rows, PLAN, baseline=True)
    assert len(learnt) == 2
    assert again.read("result.json")["baselines"] == whole.read("result.json")["baselines"]
    assert fit(pictures(), PLAN, baseline=True, name="none").read("result.json")["baselines"] == [], "no test rows"


def test_the_same_settings_give_the_same_bits(fit, pictures, whole):
    assert fit.same(fit.weights(whole), fit.weights(fit(pictures(), PLAN)))
    assert not fit.same(fit.weights(whole), fit.weights(fit(pictures(), PLAN, seed=7)))


class Interrupted(BaseException):
    """As Ctrl-C: nothing may catch it."""


def interrupt(kind: type, count: int) -> Any:
    """A listener that interrupts at the ``count``-th event of a kind."""
    left = [count]

    def listen(event: Any) -> None:
        if isinstance(event, kind) and getattr(event, "task", "train") == "train":
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted

    return listen


@pytest.fixture(scope="module")
def whole(fit_once, pictures):
    """An uninterrupted run."""
    return fit_once(pictures(), PLAN)


@pytest.mark.parametrize(
    ("kind", "count", "kept"),
    [
        (StageDone, 1, 1),
        (StageStarted, 3, 2),
        (EpochDone, 1, 1),
        pytest.param(EpochDone, 3, 2, marks=pytest.mark.slow),
        pytest.param(Progress, 5, 1, marks=pytest.mark.slow),
        (Progress, 8, 2),
    ],
)
def test_a_run_interrupted_anywhere_ends_as_if_it_had_not_been(fit, pictures, whole, monkeypatch, kind, count, kept):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)  # a checkpoint after every update
    rows = pictures()
    with pytest.raises(Interrupted):
        fit(rows, PLAN, listen=interrupt(kind, count))
    resumed = fit(rows, PLAN, resume=True)
    assert [event.name for event in fit.said(StageStarted)] == ["probe", "last", "all"][kept:]
    assert "resumed" in fit.kinds() or kind in (StageDone, StageStarted)
    assert fit.same(fit.weights(whole), fit.weights(resumed))
    for stage in STAGES:
        a, b = (Evaluation.load(run.path / "stages" / stage / "predictions.npz") for run in (whole, resumed))
        assert np.array_equal(a.logits, b.logits)


def test_a_damaged_stage_is_not_taken(fit, pictures):
    rows = pictures()
    with pytest.raises(Interrupted):
        fit(rows, PLAN, listen=interrupt(StageDone, 2))
    (file,) = fit.folder.glob("*/stages/01-last/state/model.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(ArtefactError, match="damaged"):
        fit(rows, PLAN)


def test_a_complete_run_is_left_alone(fit, pictures):
    rows = pictures()
    run = fit(rows, PLAN)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != "events.jsonl"}
    again = fit(rows, PLAN)
    assert again.path == run.path
    assert fit.kinds() == {"complete"}
    after = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != "events.jsonl"}
    assert after == before


@pytest.mark.parametrize("gone", ["model/model.safetensors", "model"])
def test_a_model_that_was_lost_is_written_again_from_its_stages(fit, pictures, gone):
    rows = with_test_rows(pictures)
    run = fit(rows, PLAN)
    before = manifest.sha256(run.path / "model/model.safetensors")
    manifest.remove(run.path / gone)
    assert fit(rows, PLAN).path == run.path
    assert "model-lost" in fit.kinds()
    assert not fit.said(StageStarted), "nothing is trained again"
    assert manifest.sha256(run.path / "model/model.safetensors") == before
    manifest.check(run.path / "model")
    assert fit(rows, PLAN).path == run.path
    assert fit.kinds() == {"complete"}


def test_only_the_same_experiment_on_the_same_contents_is_continued(fit, pictures):
    inputs, labels = pictures()
    names = [fit((inputs, labels)).path.name, fit((inputs, labels), lr=2e-3, plan=[LIVE]).path.name]
    changed = inputs.copy()
    changed[5, 3, 3, 0] ^= 1  # one bit of one picture, under the same names and labels
    names.append(fit((changed, labels)).path.name)
    names.append(fit((inputs, labels)).path.name)
    assert names == ["run", "run-2", "run-3", "run"]


def test_resuming_what_does_not_exist_is_a_clear_error(fit, pictures):
    with pytest.raises(ArtefactError, match="no run of this experiment") as caught:
        fit(pictures(), resume=True)
    assert "experiment.yaml" in str(caught.value)
    assert not fit.folder.exists()


def test_the_end_of_a_run_is_made_up_for(fit, pictures):
    rows = pictures()
    run = fit(rows)
    (run.path / "report.html").unlink()
    fit(rows)
    assert (run.path / "report.html").is_file()


def test_where_the_baseline_wins_the_run_is_given_with_a_warning(fit, pictures):
    inputs, labels = pictures(90, hard=0.0)
    rows = inputs, np.random.default_rng(5).permutation(labels)
    run = fit(rows, baseline=True)
    assert run.beaten_by == run.read("result.json")["beaten_by"]
    assert run.beaten_by
    (warning,) = [event for event in fit.said(Notice) if event.kind == "beaten"]
    assert (warning.level, run.beaten_by in warning.message) == ("warning", True)
    assert "no stage beat the baseline" in (run.path / "report.html").read_text(encoding="utf-8")
    assert fit(rows, baseline=True).path == run.path
    assert "beaten" in fit.kinds(), "the same call says so again"


def test_where_a_stage_beats_the_baseline_nothing_is_said(fit, pictures):
    run = fit(pictures(), baseline=True)
    assert run.beaten_by is None
    assert "beaten" not in fit.kinds()


@pytest.mark.parametrize("on_fail", ["revert", "stop"])
def test_a_gate_restores_the_incumbent_bit_for_bit(fit, pictures, on_fail, monkeypatch):
    """The stage in the middle ruins the network: its weights must leave no trace, buffers included."""
    ruin = {"scratch": {"epochs": 1, "batch_size": 16, "lr": 1.0, "gate": {"on_fail": on_fail}}}
    seen: list[dict[str, torch.Tensor]] = []
    original = gates.check

    def check(*arguments: Any, **named: Any) -> Any:
        seen.append({name: value.clone() for name, value in watched[0].state_dict().items()})
        return original(*arguments, **named)

    from headstart.workflows import course

    watched: list[Any] = []
    take = course.Course.take

    def watching(self: Any, index: int, stage: Any) -> Any:
        watched[:] = [self.model]
        return take(self, index, stage)

    monkeypatch.setattr(gates, "check", check)
    monkeypatch.setattr(course.Course, "take", watching)
    run = fit(pictures(), ["probe", ruin, {"thaw": {"epochs": 1, "lr": 1e-9, "blocks": 1, "augment": "none"}}])
    decisions = [stage["verdict"]["decision"] for stage in run.stages()]
    assert decisions == (["keep", "revert", "revert"] if on_fail == "revert" else ["keep", "stop"])
    assert not fit.same(seen[0], seen[1]), "the stage changed nothing, so the test shows nothing"
    assert fit.same(seen[0], watched[0].state_dict())
    assert run.read("result.json")["best"] == "probe"
    assert not (run.path / "stages/01-scratch/state/model.safetensors").exists()


def test_the_test_rows_are_read_once_and_every_reading_is_counted(fit, pictures):
    import headstart

    run = fit(with_test_rows(pictures))
    assert run.read("result.json")["test_reads"] == 1
    headstart.evaluate(run)
    assert run.read("result.json")["test_reads"] == 2


def test_an_early_look_at_the_test_rows_is_caught(fit, pictures, monkeypatch):
    from headstart.workflows.baselines import Baselines

    monkeypatch.setattr(Baselines, "judge", lambda self: self.decoded.examples("test"))
    with pytest.raises(TrainingError, match="sealed"):
        fit(with_test_rows(pictures), baseline=True)


def test_an_interruption_at_the_end_does_not_hide_a_reading(fit, pictures, monkeypatch):
    from headstart.workflows import finish

    rows = with_test_rows(pictures)
    with monkeypatch.context() as patch:
        patch.setattr(finish, "_save_model", lambda *_: (_ for _ in ()).throw(Interrupted))
        with pytest.raises(Interrupted):
            fit(rows)
    assert fit(rows).read("result.json")["test_reads"] == 2


def test_few_rows_give_an_optimistic_score_and_say_so(fit, pictures):
    run = fit(pictures())
    result = run.read("result.json")
    assert (result["optimistic"], result["test_reads"], result["metrics"]["test"]) == (True, 0, None)
    assert "optimistic" in fit.kinds()


def test_a_starved_recipe_is_refused(fit, pictures):
    recipe = [{"thaw": {"epochs": 2, "batch_size": 32}}]
    with pytest.raises(ConfigError, match="too few") as caught:
        fit(pictures(), recipe, force=False)
    assert "plan[0].thaw" in str(caught.value)
    assert "epochs=" in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        fit(pictures(), [{"thaw": {"epochs": 2, "batch_size": 32, "blocks": 99}}], force=False)
    assert [problem.where for problem in caught.value.problems] == ["plan[0].thaw-99.blocks", "plan[0].thaw-99"]


def test_a_named_plan_gets_the_epochs_it_needs(fit, pictures):
    from headstart.core.events import Decision

    with pytest.raises(Interrupted):
        fit(pictures(), "full", force=False, listen=interrupt(StageStarted, 1), batch_size=24)
    raised = [event for event in fit.said(Decision) if event.topic == "epochs of full"]
    assert len(raised) == 1
    assert "too few" in raised[0].reason


def test_the_time_limit_leaves_later_stages_out(fit, pictures):
    run = fit(pictures(), PLAN, time_limit=1e-3)
    assert [stage["name"] for stage in run.stages()] == ["probe"]
    assert "time-up" in fit.kinds()
    assert run.model_folder.is_dir()


@pytest.mark.parametrize("pause", [True, False])
def test_the_time_limit_counts_what_earlier_sessions_took(fit, pictures, pause):
    """The pause between sessions does not count; complete stages are taken however late it is."""
    rows = pictures()
    with pytest.raises(Interrupted):
        fit(rows, PLAN, time_limit=1e5, listen=interrupt(StageDone, 2))
    (events,) = fit.folder.glob("*/events.jsonl")
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    for line in lines if pause else lines[:1]:
        line["time"] -= 3e5
    events.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run = fit(rows, PLAN, time_limit=1e5, resume=True)
    assert [stage["name"] for stage in run.stages()] == ["probe", "last", "all"][: 3 if pause else 2]
    assert run.read("result.json")["best"] == run.best()["name"]
    assert [event.kind for event in fit.said(Notice)].count("stage-kept") == 2
    assert ("time-up" in fit.kinds(), run.read("result.json")["seconds"] > 1e5) == (not pause, not pause)


def test_seconds_are_counted_by_session(tmp_path):
    run = Run(tmp_path)
    told = [(100.0, "Phase", ""), (110.0, "EpochDone", ""), (500.0, "Notice", "continued"), (503.0, "Phase", "")]
    lines = [json.dumps({"time": time, "event": event, "kind": kind}) for time, event, kind in told]
    assert places.seconds_before(run) == 0.0
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert places.seconds_before(run) == 13.0


def test_fewer_rows_than_processes_are_refused_up_front(fit, pictures, monkeypatch):
    rows = [
        Rows(list(x), np.zeros(len(y), np.int64), tuple(map(str, range(len(y))))) for x, y in (pictures(9), pictures(3))
    ]
    splits = Splits(*rows, ("a",), "image")
    preflight.ranks(splits, 3)
    with pytest.raises(ConfigError, match=r"4 processes .* val \(3\)"):
        preflight.ranks(splits, 4)
    asked = []
    monkeypatch.setattr(preflight, "ranks", lambda found, world: asked.append((found.counts(), world)))
    fit(pictures())
    assert [world for _, world in asked] == [1]


def test_a_frozen_buffer_that_moves_stops_the_run(fit, pictures, monkeypatch):
    from headstart.stages.learner import Learner

    forward = Learner.forward

    def nudging(self: Any, *arguments: Any) -> Any:
        self.model.backbone.module.stem[1].running_mean[0] += 1e-6
        return forward(self, *arguments)

    monkeypatch.setattr(Learner, "forward", nudging)
    with pytest.raises(TrainingError, match="frozen weights or buffers have moved"):
        fit(pictures(), ["probe", CACHED])


def test_a_run_judged_by_sensitivity_tells_of_which_class(fit, pictures):
    drawn, kinds = pictures(24)
    rows = (drawn, np.where(kinds == "red", "normal", "cancer"))
    fit(rows, ["probe"], metric="sensitivity")
    (told,) = [event for event in fit.said(Decision) if event.topic == "sensitivity"]
    assert (told.choice, "95% of 'cancer'" in told.reason) == ("of 'normal'", True)
    fit(rows, ["probe"], metric="accuracy")
    assert not [event for event in fit.said(Decision) if event.topic == "sensitivity"]


def test_a_run_shows_itself(fit, pictures):
    run = fit(with_test_rows(pictures), PLAN, name="<b>bold", baseline=True)
    frame = run.frame()
    assert list(frame["stage"]) == ["majority", "pixels", "probe", "last", "all"], "what is to be beaten comes first"
    assert list(frame["verdict"][:2]) == ["baseline", "baseline"]
    assert list(frame["accuracy"][:2]) == [
        each["metrics"]["accuracy"]["value"] for each in run.read("baseline/result.json")
    ]
    assert set(frame["metric"]) == {"accuracy"}
    assert frame["updates"].dtype.kind == "i", "counts stay whole"
    assert frame["accuracy"].between(frame["accuracy_low"], frame["accuracy_high"]).all()
    shown = run._repr_html_()
    assert shown.count("<tr>") == 6
    assert "15 test rows" in shown
    assert "<b>" not in shown
    assert "<b>bold" in repr(run)


def test_a_run_folder_can_be_moved(fit, pictures, tmp_path):
    import headstart

    run = fit(pictures())
    moved = tmp_path / "moved"
    run.path.rename(moved)
    assert headstart.load(moved).classes == ("dark", "red", "stripes")


def test_events_are_recorded_as_they_are_told(fit, pictures):
    run = fit(pictures(), PLAN)
    told = [event for event in fit.events if event.recorded]
    stored = run.events()
    assert [type(event).__name__ for event in told] == [event["event"] for event in stored]
    assert json.loads(json.dumps(stored)) == stored
    assert any(isinstance(event, Notice) for event in told)
