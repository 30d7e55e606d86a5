"""Settings from a file, the line and Python: who wins, what is told, and where every mistake stands."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headstart.core import registry, settings
from headstart.core.errors import ConfigError
from headstart.data.settings import SplitSettings
from headstart.experiment import Experiment, load
from headstart.stages import budget, plans

ROOT = Path(__file__).resolve().parents[1]


BOMB = "l0: &l0 [x, x, x, x, x, x, x, x]\n" + "".join(
    f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 8)}]\n" for i in range(1, 9)
)


def write(folder: Path, text: str, name: str = "pets.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def mistakes(error: ConfigError) -> list[str]:
    return [f"{problem.where}: {problem.what}" for problem in error.problems]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-1", -1),
        ("true", True),
        ("null", None),
        ("[1, 2e-3]", [1, 2e-3]),
        ("{cat: 2}", {"cat": 2}),
        ("no", "no"),
        ("007", "007"),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("a: b", "a: b"),
        ("*.csv", "*.csv"),
        ("[broken", "[broken"),
        ("", ""),
        ("'3'", "3"),
        ("|", "|"),
        ("''", ""),
    ],
)
def test_a_value_on_the_line_is_what_people_mean(text: str, meant: object) -> None:
    assert settings.value(text) == meant
    assert type(settings.value(text)) is type(meant)


def test_dump_and_parse_are_inverse() -> None:
    mapping = {
        "texts": ["3e-4", "yes", "007", "1:30", "~", "", "0x10", "x: y # z", "true", "é", "a\nb"],
        "numbers": [1, 1e-5, 1e20, math.inf, -0.5],
        "no": None,
        "on": True,
        "inner": {"1": {}, "empty": []},
    }
    assert settings.parse(settings.dump(mapping), "x").plain() == mapping


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "f.yaml:2: 'a' is written twice"),
        ("a: [1", "f.yaml:1: not valid YAML"),
        ("a: &x [*x]", "nested too deeply"),
        ("a: !!python/object/apply:os.system ['true']", "has to be"),
        ("a: !!python/name:os.system x", "not valid YAML"),
        ("- 1", "no `key: value` settings"),
        ("? [a]\n: 1\n", "a key has to be a word"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        (BOMB, "too many"),
    ],
)
def test_a_bad_file_is_named_with_its_line(text: str, said: str) -> None:
    if "apply" in text:  # a tag on a list builds nothing: it is a list
        assert settings.parse(text, "f.yaml").plain() == {"a": ["true"]}
        return
    with pytest.raises(ConfigError) as caught:
        settings.parse(text, "f.yaml")
    assert said in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot read"):
        load(tmp_path / "nothing.yaml")


def test_defaults_need_no_file() -> None:
    experiment = load()
    assert experiment == Experiment()
    assert (experiment.plan, experiment.seed, experiment.output_dir) == ("gradual", 42, "runs")
    assert experiment.stages() == plans.PLANS["gradual"]


def test_the_file_is_read_and_the_line_wins(tmp_path: Path) -> None:
    file = write(tmp_path, "data: photos/\nseed: 1\nlr: 1e-3\nplan: full\ndata_dir_is_not_a_setting: 1\n")
    with pytest.raises(ConfigError, match="data_dir_is_not_a_setting: unknown setting"):
        load(file)
    file = write(tmp_path, "data: photos/\nseed: 1\nlr: 1e-3\nplan: full\n")
    experiment = load(file, ["lr=3e-4", "data.split.val=0.2"], origin="command line", seed=7, device=None)
    assert (experiment.data.source, experiment.data.split.val, experiment.data.split.test) == ("photos/", 0.2, None)
    assert (experiment.seed, experiment.training, experiment.device) == (7, {"lr": 3e-4}, "auto")
    assert [stage.lr for stage in experiment.stages()] == [3e-4]  # type: ignore[attr-defined]
    why = {row.key: row.why for row in experiment.explain()}
    assert why["data.source"] == f"{file}:1"
    assert why["plan"] == f"{file}:4"
    assert why["lr"] == why["seed"] == why["data.split.val"] == "command line"
    assert why["data.split.test"] == why["device"] == "default"
    assert why["plan[0].thaw.lr"] == "command line"
    assert why["plan[0].thaw.epochs"] == "plan full"
    assert why["plan[0].thaw.momentum"] == "default"


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = """data: {source: photos/, split: {val: 0.15, tst: 0.1}}
backbone: timm/vit
plan:
  - probe: {views: 4}
  - thaw:
      blocks: 4
      blcks: 4
      gate: {on_fail: explode}
  - thow: {blocks: 2}
precision: fp61
lerning_rate: 3
freeze: 10
head: {dropout: 1.5}
"""
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(file, ["seed=-1", "lr=2", "oops", "plan[9].thaw.lr=3", "seed.x=2"], origin="command line", learning_rate=1)
    told = mistakes(caught.value)
    for line in (
        f"plan[1].thaw.blcks: unknown setting, did you mean 'blocks'? ({file}:7)",
        f"plan[1].thaw.gate.on_fail: should be 'revert', 'stop' or 'warn' (got 'explode') ({file}:8)",
        f"plan[2]: unknown name 'thow' among the methods, did you mean 'thaw'? ({file}:9)",
        f"data.split.tst: unknown setting, did you mean 'test'? ({file}:1)",
        f"precision: should be 'auto', 'fp32' or 'bf16' (got 'fp61') ({file}:10)",
        f"lerning_rate: unknown setting, did you mean 'learning_rate'? ({file}:11)",
        f"freeze: unknown setting ({file}:12)",
        f"head.dropout: should be less than 1 (got 1.5) ({file}:13)",
        "seed: should be greater than or equal to 0 (got -1) (command line)",
        "lr: given twice, as 'lr' and as 'learning_rate' (command line)",
        "command line: 'oops' is not key=value",
        "plan[9].thaw.lr: there is nothing of that name, plan has 3 entries: probe, thaw, thow (command line)",
        "seed.x: there is nothing of that name, seed is -1 (command line)",
    ):
        assert line in told
    assert len(told) == 13


@pytest.mark.parametrize("plan", ["gradul", "auto", [{"probe": {"vews": 4}}]])
def test_settings_of_stages_are_checked_beside_a_plan_that_is_wrong_or_not_known_yet(plan: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(plan=plan, lr="abc", epochs=-3, views=2)
    told = mistakes(caught.value)
    assert "lr: should be a valid number (got 'abc') (argument)" in told
    assert "epochs: should be greater than or equal to 1 (got -3) (argument)" in told
    assert len(told) == 2 + (plan != "auto"), "the plan's own mistake, and none of views, which some stage has"


def test_a_setting_of_a_stage_that_is_misspelled_is_not_taken_for_another_mistake() -> None:
    with pytest.raises(ConfigError) as caught:
        load(plan=[{"mlm": {"epohs": 3}}], share=0.2)
    assert mistakes(caught.value) == ["plan[0].mlm.epohs: unknown setting, did you mean 'epochs'? (argument)"]


def test_a_union_fails_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load(plan=[{"thaw": {"blocks": "four"}}])
    assert mistakes(caught.value) == [
        "plan[0].thaw.blocks: should be a valid number or a valid integer or 'all' (got 'four') (argument)"
    ]


def test_other_tools_names_are_understood_and_said_aloud() -> None:
    overrides = ["learning_rate=1e-3", "num_train_epochs=2", "bs=8", "label_smoothing_factor=0.1", "wd=0"]
    experiment = load(None, [*overrides, "early_stopping_patience=3", "imgsz=96", "out=here"], model="a/b")
    assert experiment.training == {
        "lr": 1e-3, "epochs": 2, "batch_size": 8, "label_smoothing": 0.1, "weight_decay": 0, "patience": 3,
    }  # fmt: skip
    assert (experiment.backbone, experiment.image_size, experiment.output_dir) == ("a/b", 96, "here")
    assert "'learning_rate' is called 'lr' here" in experiment.notes
    assert len(experiment.notes) == len(set(experiment.notes)) == 9


def test_aliases_inside_stages_and_splits(tmp_path: Path) -> None:
    file = write(
        tmp_path, "dataset: {source: a, split: {group: id, valid: 0.3}}\nplan: [{thaw: {learning_rate: 1e-3}}]\n"
    )
    experiment = load(file, ["plan[0].bs=4"])
    assert (experiment.data.split.group_by, experiment.data.split.val) == ("id", 0.3)
    stage = experiment.stages()[0]
    assert (stage.lr, stage.batch_size) == (1e-3, 4)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"plan\[0\].thaw.lr: given twice, as 'lr' too"):
        load(write(tmp_path, "plan: [{thaw: {learning_rate: 1e-3, lr: 2}}]\n"))


def test_a_file_may_name_what_lies_deep_as_the_line_does(tmp_path: Path) -> None:
    found = load(write(tmp_path, "plan.thaw-half.lr: 1e-3\ngate.min_gain: 0.02\ndata.split.val: 0.3\n"))
    titles = {stage.title: stage for stage in found.stages()}
    assert [titles[name].lr for name in ("thaw-quarter", "thaw-half")] == [3e-4, 1e-3]
    assert {stage.gate.min_gain for stage in found.stages()} == {0.02}
    assert found.data.split.val == 0.3
    assert {row.key: row.why for row in found.explain()}["data.split.val"].endswith("pets.yaml:3")
    for text in ("plan: gradual\nplan.thaw-half.lr: 1e-4\n", "plan.thaw-half.lr: 1e-4\nplan: gradual\n"):
        assert {stage.title: stage for stage in load(write(tmp_path, text)).stages()}["thaw-half"].lr == 1e-4
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, "plan.thaw-hlaf.lr: 1e-3\ndata.splt.val: 0.3\n"))
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("plan", ["{probe: {}}", "{}", "", "3", "true", "[]", "[3]", "[null]", "[[probe]]"])
def test_a_plan_that_is_none_is_told_with_its_line(plan: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, f"seed: 1\nplan: {plan}\nlr: 1\n"))
    (told,) = [problem for problem in caught.value.problems if problem.where.startswith("plan")]
    assert "pets.yaml:2" in told.what
    assert "for example" in told.remedy


def test_one_stage_of_a_named_plan_can_be_changed() -> None:
    experiment = load(None, ["plan[1].epochs=1", "plan.thaw-half.lr=5e-5", "plan.probe.views=2", "lr=1e-3"])
    probe, quarter, half, whole = experiment.stages()
    assert (probe.views, quarter.epochs) == (2, 1)  # type: ignore[attr-defined]
    assert [stage.lr for stage in (quarter, half, whole)] == [1e-3, 5e-5, 1e-3]  # type: ignore[attr-defined]
    assert half.blocks == plans.PLANS["gradual"][2].blocks  # type: ignore[attr-defined]
    assert load(None, ["lr=1e-3", "plan.thaw-half.lr=5e-5"]).stages()[1:3] != experiment.stages()[1:3]


@pytest.mark.parametrize("overrides", [["plan.thaw-half.lr=5e-5"], ["plan[2].lr=5e-5"], ["plan[2].thaw.lr=5e-5"]])
@pytest.mark.parametrize("named", [{}, {"plan": "gradual"}])
@pytest.mark.parametrize("modality", ["image", "text", "audio"])
def test_the_other_stages_stay_those_of_the_named_plan(
    overrides: list[str], named: dict[str, str], modality: str, tmp_path: Path
) -> None:
    """A planted mistake of long ago: ``--plan`` came last, and what was said of its stages was gone."""
    experiment = load(None, overrides, **named)
    usual, found = plans.parse("gradual", modality=modality), experiment.stages(modality)
    assert found[2] == replace(usual[2], lr=5e-5)  # type: ignore[call-arg]
    assert (*found[:2], found[3]) == (*usual[:2], usual[3])
    again = load(write(tmp_path, experiment.to_yaml()))
    assert again.stages(modality) == found
    why = {row.key: (row.value, row.why) for row in experiment.explain(modality)}
    assert why["plan[2].thaw.lr"] == (5e-5, "argument")
    assert why["plan[1].thaw.blocks"] == (0.25, "plan gradual")
    assert why["plan[1].thaw.lr"][0] == usual[1].lr  # type: ignore[attr-defined]
    few = experiment.lengthened(found, 20)
    assert (
        [stage.epochs for stage in few[1:]]
        == [  # type: ignore[attr-defined]
            stage.epochs
            for stage in budget.repaired(usual, 20)[1:]  # type: ignore[attr-defined]
        ]
    )
    told = load(None, [*overrides, "plan.thaw-all.epochs=1"], **named)
    assert told.lengthened(told.stages(modality), 20)[3].epochs == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given", "own"),
    [("data.image_size=64", "image_size"), ("data.folds=5", "data.split.folds"), ("head.lr=1e-3", "lr"),
     ("data.split.channels=1", "data.channels"), ("head.epochs=3", "epochs"), ("head.name=mlp", "")],
)  # fmt: skip
def test_a_setting_in_a_place_of_others_is_told_its_own(given: str, own: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(None, [given])
    (problem,) = raised.value.problems
    assert problem.what.startswith("unknown setting")
    assert problem.where == given.partition("=")[0]
    assert problem.remedy == (f"it is {own}" if own else "")


@pytest.mark.parametrize(
    ("given", "where", "wrong", "meant"),
    [("augment=strnog", "augment", "strnog", "strong"),
     ("augment={preset: lihgt, flip: 0}", "augment", "lihgt", "light"),
     ("plan.thaw-half.augment=stadnard", "plan[2].gradual.thaw-half.augment", "stadnard", "standard")],
)  # fmt: skip
def test_a_misspelt_preset_is_told_once_with_the_other_mistakes(given: str, where: str, wrong: str, meant: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(None, [given, "batch_size=abc"])
    told = {problem.where: problem for problem in raised.value.problems}
    assert set(told) == {where, "batch_size"}
    assert len(raised.value.problems) == 2, "once, though three stages augment"
    assert f"unknown preset '{wrong}', did you mean '{meant}'?" in told[where].what
    assert told[where].remedy.startswith("known: auto, none, ")


@pytest.mark.parametrize("kind", ["image", "audio", "text"])
def test_the_presets_of_every_modality_are_known(kind: str) -> None:
    presets = registry.find("headstart.data.modalities", kind).PRESETS
    for name in (*presets, "auto"):
        assert load(augment=name).training == {"augment": name}
    assert load(augment={"mask": 0.1}).training == {"augment": {"mask": 0.1}}
    assert load(augment=abs).training == {"augment": abs}


def test_the_settings_of_a_stage_have_names() -> None:
    with pytest.raises(ConfigError, match=r"plan\[0\].thaw: the settings of a stage have names \(got 3\)"):
        load(None, ["plan=[{thaw: 3}]"])


def test_the_split_may_be_given_without_its_place() -> None:
    assert load(None, ["split.val=0.3", "split.test=0"]).data.split == SplitSettings(val=0.3, test=0.0)


def test_the_order_on_the_line_does_not_matter() -> None:
    for overrides in (["plan.thaw.lr=1e-3", "plan=[probe, thaw]"], ["plan=[probe, thaw]", "plan.thaw.lr=1e-3"]):
        assert load(None, overrides).stages()[1].lr == 1e-3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="unknown setting, did you mean 'epochs'"):
        load(None, ["plan.thaw-half.epochz=3"], plan="gradual")
    with pytest.raises(ConfigError, match=r"plan has 4 entries: gradual.probe, gradual.thaw-quarter, "):
        load(None, ["plan.thaw-haf.epochs=3"])


def test_stages_of_named_plans_can_stand_in_a_list(tmp_path: Path) -> None:
    file = write(tmp_path, "plan:\n  - gradual.probe: {views: 2}\n  - full.full\n")
    probe, full = load(file).stages("text")
    (usual,) = plans.parse("full", modality="text")
    assert (probe, full) == (replace(plans.PLANS["probe"][0], views=2), usual)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match=r"plan 'gradual' has no stage 'thaw-haf', did you mean 'thaw-half'\?"):
        load(plan=["gradual.thaw-haf"])


def test_the_whole_plan_yields_to_a_stage_of_the_same_source_only(tmp_path: Path) -> None:
    file = write(tmp_path, "lr: 1e-3\nplan:\n  - thaw: {lr: 1e-5}\n  - thaw\n")
    assert [stage.lr for stage in load(file).stages()] == [1e-5, 1e-3]  # type: ignore[attr-defined]
    assert [stage.lr for stage in load(file, ["lr=0.1"]).stages()] == [0.1, 0.1]  # type: ignore[attr-defined]
    assert [stage.lr for stage in load(file, ["plan[1].lr=0.1"]).stages()] == [1e-5, 0.1]  # type: ignore[attr-defined]


def test_a_setting_that_no_stage_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="no stage of the plan has the setting 'lr'"):
        load(plan="probe", lr=1e-3)
    assert load(plan="auto", lr=1e-3).training == {"lr": 1e-3}
    with pytest.raises(ConfigError, match="before the data is known"):
        load(plan="auto").stages()


def test_the_data_may_be_the_data_itself() -> None:
    rows = [("a.jpg", "cat"), ("b.jpg", "dog")]
    assert load(data=rows).data.source is rows
    assert load(data={"train": "a/", "val": "b/"}).data.source == {"train": "a/", "val": "b/"}
    assert load(data={"source": "a/", "split": {"val": 0.3}}).data.split.val == 0.3
    named: dict[str, Any] = {"data.split.val": 0.3, "plan[0].views": 2}
    experiment = load(data="a/", plan="probe", **named)
    assert (experiment.data.source, experiment.data.split.val, experiment.stages()[0].views) == ("a/", 0.3, 2)  # type: ignore[attr-defined]
    assert load(data="a/", plan="[probe, {thaw: {blocks: 1}}]").plan == ["probe", {"thaw": {"blocks": 1}}]
    marker = object()
    assert load(data=marker, backbone=marker).backbone is marker


def test_functions_are_taken_and_shown_by_name() -> None:
    def my_metric(labels: object, probabilities: object) -> float:
        return 0.0

    experiment = load(metric=my_metric, augment=my_metric)
    assert experiment.metric is my_metric
    assert experiment.stages()[0].augment is my_metric  # type: ignore[attr-defined]
    assert experiment.as_mapping()["metric"].endswith("my_metric")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["lr=3e-4", "mixup=0.2", "plan=full"],
        ["plan[1].bs=8", "plan[1].rates={head: 1e-3, 'no': 1}", "name='007'", "time_limit=1e5"],
        ["plan=auto", "data=photos/", "data.limit=10", "training.lr=1e-3"],
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, overrides: list[str]) -> None:
    experiment = load(None, overrides)
    again = load(write(tmp_path, experiment.to_yaml()))
    assert again == experiment
    assert again.to_yaml() == experiment.to_yaml()


@pytest.mark.parametrize("file", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_example_parses_plans_and_states_its_command(file: Path) -> None:
    experiment = load(file)
    assert experiment.stages()
    assert not experiment.notes, "examples use our own names"
    header = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"experiments/{file.name}" in line and "headstart fit" in line for line in header)


def test_all_names_are_ours_or_aliases_but_never_both() -> None:
    from headstart.aliases import ALIASES, ELSEWHERE
    from headstart.experiment import _known

    ours = set().union(*(_known(scope) for scope in ((), ("data",), ("data", "split"), ("head",), ("plan", 0, "thaw"))))
    assert not ours & set(ELSEWHERE)
    assert set(ALIASES.values()) <= ours, "an alias leads nowhere"
