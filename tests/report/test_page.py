"""The report: complete, self-contained, honest about what is missing, and deaf to hostile names."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from headstart import report
from headstart.core.run import Run
from headstart.measure.evaluation import Evaluation
from headstart.report import contents, evidence, story
from headstart.report.answers import class_table, pairs

Make = Callable[..., Run]
VOID = {"meta", "img", "br", "hr", "link", "input"}
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "=cmd|' /C calc'!A0",
    "\x1b[31mred\x1b]0;title\x07",
    "\u202egpj.exe",
    "</style><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
    "--><!--",
    "]]>&lt;b&gt;&amp;",
    "a\nb\tc\x00d",
    "\udcff\ud800",
    "../../etc/passwd",
)


class Tree(HTMLParser):
    """The page as a list of tags with their attributes, texts apart; raises where tags are not nested."""

    SPOKEN = ("aria-label", "alt", "content", "title")  # attributes that carry texts

    def __init__(self, page: str) -> None:
        super().__init__()
        self.nodes: list[tuple[object, ...]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.raw: dict[str, str] = {}
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        shown = tuple((key, "" if key in self.SPOKEN else value) for key, value in attrs)
        self.nodes.append((len(self.open), tag, shown))
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.raw[self.open[-1]] = self.raw.get(self.open[-1], "") + data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def write(run: Run) -> tuple[str, Tree]:
    page = report.write(run).read_text(encoding="utf-8")
    return page, Tree(page)


def test_the_page_tells_the_whole_run(make: Make) -> None:
    run = make()
    page, tree = write(run)
    test = Evaluation.load(run.path / "predictions-test.npz").metric("accuracy")
    assert f"{100 * test.value:.1f}% of the test pictures are right" in tree.text
    assert f"{100 * test.low:.1f}–{100 * test.high:.1f}%" in tree.text
    for section in ("Stages", "How it went", "Mistakes", "Calibration", "Audit", "What trained, and how fast"):
        assert section in tree.text
    for fact in ("thaw-quarter", "reverted", "majority", "1 file is cut off", "it is on this machine", "5f1c"):
        assert fact in tree.text
    assert tree.text.count("Consistent with perfect calibration") + tree.text.count("verconfident") == 2
    assert page.count("data:image/jpeg") >= 12
    assert page.count("data:image/png") == 4
    assert "nan" not in re.sub(r"data:[^\"]*", "", page).lower().replace("finance", "")


def test_the_page_is_self_contained_and_locked(make: Make) -> None:
    page, tree = write(make())
    policy = next(value for _, key, value in tree.attributes if key == "content" and "default-src" in value)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(tree.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [a for a in tree.attributes if a[1].startswith("on") or a[1] == "style"]
    assert all(value.startswith("data:image/") for tag, key, value in tree.attributes if key == "src")
    assert all(value.startswith("#") for tag, key, value in tree.attributes if key == "href")
    ids = [value for _, key, value in tree.attributes if key == "id"]
    assert {value[1:] for _, key, value in tree.attributes if key == "href"} <= set(ids)
    assert "://" not in re.sub(r"data:[^\"]*", "", page)


def test_the_same_folder_gives_the_same_page(make: Make) -> None:
    run = make()
    first, _ = write(run)
    again, _ = write(run)
    assert first == again


@pytest.mark.parametrize("start", range(0, len(HOSTILE), 4))
def test_hostile_names_leave_the_page_as_it_is(make: Make, start: int) -> None:
    chosen = [HOSTILE[(start + i) % len(HOSTILE)] for i in range(7)]

    def build(names: list[str]) -> Run:
        finding = {"kind": names[0], "severity": "warning", "split": names[1], "rows": [1], "names": [names[2]]}
        run = make(
            classes=[f"{i}{name}" for i, name in enumerate(names)],
            names=lambda split, row: f"{names[row % 7]}{row}",
            findings=[{**finding, "message": names[3], "remedy": names[4]}],
            note=names[5],
            titles=[f"{i}{name}" for i, name in enumerate(names[:4])],
        )
        text = json.dumps({"backbone": names[6], "plan": ["probe"], "seed": 1})
        comment = "".join(c for c in names[0] if c.isprintable())
        (run.path / "experiment.yaml").write_text(f"{text}\n# {comment}")
        return run

    page, tree = write(build(chosen))
    _, control = write(build([f"n{i}" for i in range(7)]))
    assert tree.nodes == control.nodes
    assert tree.raw == control.raw
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_an_unescaped_template_would_be_caught(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.report import page as module

    real = module.Environment
    monkeypatch.setattr(module, "Environment", lambda **options: real(**{**options, "autoescape": False}))
    hostile = make(note="<script>alert(1)</script>")
    control = make(note="n")
    module._template.cache_clear()
    try:
        with pytest.raises(AssertionError):
            assert write(hostile)[1].nodes == write(control)[1].nodes
    finally:
        module._template.cache_clear()


def test_no_test_split_is_called_optimistic(make: Make) -> None:
    _, tree = write(make(n_test=0, n_val=60))
    assert "of the validation pictures are right optimistic" in tree.text
    assert "it is optimistic" in tree.text
    assert "Only 60 rows stand behind the score" in tree.text
    assert "Too few rows" in tree.text
    assert "the second diagram is optimistic" in tree.text


def test_an_interrupted_run_says_so(make: Make) -> None:
    _, tree = write(make(finished=False, stages=2, baseline=False))
    assert "Unfinished: 2 of 4 stages are done" in tree.text
    assert "--resume" in tree.text
    assert "No baseline was measured" in tree.text


def test_a_run_without_any_stage(make: Make) -> None:
    run = make(finished=False, stages=0)
    _, tree = write(run)
    assert "No stage has finished yet" in tree.text
    assert "majority" in tree.text


def test_a_nearly_empty_folder_still_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text("seed: 1\n")
    _, tree = write(Run(tmp_path))
    assert "data.json is missing" in tree.text
    assert "No audit was recorded" in tree.text


def test_damaged_files_are_named_and_left_out(make: Make) -> None:
    run = make()
    (run.path / "predictions-test.npz").write_bytes(b"PK\x03\x04 broken")
    (run.path / "data.json").write_text("{")
    (run.path / "experiment.yaml").write_text("a: [")
    with open(run.path / "events.jsonl", "a") as file:
        file.write('{"event": "EpochD')
    _, tree = write(run)
    for name in ("predictions-test.npz", "data.json", "experiment.yaml"):
        assert name in tree.text


def test_a_repeated_read_of_the_test_split_is_said(make: Make) -> None:
    run = make()
    result = run.read("result.json")
    run.write("result.json", {**result, "test_reads": 3})
    assert "read 3 times" in write(run)[1].text


def test_losing_to_the_baseline_is_said_first(make: Make) -> None:
    run = make()
    result = run.read("baseline/result.json")
    best = {"value": 0.99, "low": 0.98, "high": 0.995, "n": 420}
    run.write("baseline/result.json", [{**result[1], "metrics": {"accuracy": best}}])
    page, tree = write(run)
    assert "nothing was gained over it" in tree.text
    assert 'class="hero bad"' in page


def test_another_metric_leads_when_the_run_was_judged_by_it(make: Make) -> None:
    run = make()
    for stage in run.stages():
        file = run.path / stage["folder"] / "result.json"
        content = json.loads(file.read_text())
        content["verdict"]["metric"] = "log_loss"
        file.write_text(json.dumps(content))
    # the stages' manifests no longer hold, so seal them again as the engine would
    from headstart.core import manifest

    for folder in (run.path / "stages").iterdir():
        manifest.seal(folder)
    _, tree = write(run)
    assert "The log-loss on the test pictures is 0." in tree.text
    assert "p < 0.001" in tree.text


def test_the_gain_over_the_baseline_is_paired_where_its_answers_are_kept(make: Make) -> None:
    run = make()
    assert re.search(
        r"On the same validation rows .* \(paired, \+[\d.]+ to \+[\d.]+ points, p < 0.001\)", write(run)[1].text
    )
    for file in (run.path / "baseline").glob("*.npz"):
        file.unlink()
    assert "the intervals are apart" in write(run)[1].text


def test_the_baseline_on_test_rows_is_told_where_it_is_kept(make: Make) -> None:
    run = make()
    result, test = run.read("result.json"), Evaluation.load(run.path / "predictions-test.npz")
    entry = {"name": "pixels", "metrics": {"accuracy": {"value": 0.613, "low": 0.57, "high": 0.65, "n": 560}}}
    value = test.metric("accuracy").value - 0.613
    gain = {"value": value, "low": value - 0.05, "high": value + 0.05, "p": 1e-6, "n": 560}
    run.write("result.json", {**result, "baselines": [{**entry, "gain": gain}]})
    page, tree = write(run)
    told = f"+{100 * value:.1f} points (paired, +{100 * value - 5:.1f} to +{100 * value + 5:.1f} points"
    assert f"On the same test rows the best baseline without a backbone (pixels) reaches 61.3%: {told}" in tree.text
    assert f"The model: +{100 * value:.1f} points on the same rows" in tree.text
    assert '<tbody class="beside ' in page
    worse = {**gain, "value": -0.01, "low": -0.05, "high": 0.03}
    high = {"accuracy": {"value": 0.999, "low": 0.99, "high": 1.0, "n": 560}}
    run.write("result.json", {**result, "baselines": [{**entry, "metrics": high, "gain": worse}]})
    assert "On test rows the best baseline without a backbone (pixels) reaches 99.9%: nothing was" in write(run)[1].text
    for broken in (
        [{**entry, "gain": None}],
        [{**entry, "gain": {**gain, "n": 560, "more": 1}}],
        [{"gain": gain}],
        ["pixels"],
        None,
    ):
        run.write("result.json", {**result, "baselines": broken})
        assert "On the same validation rows" in write(run)[1].text


def test_an_own_metric_that_was_not_measured_on_test_gives_way_to_accuracy(make: Make) -> None:
    run = make()
    run.write("result.json", {**run.read("result.json"), "metric": "my_score"})
    _, tree = write(run)
    assert "of the test pictures are right" in tree.text
    assert "optimistic" not in tree.text


def test_many_classes_stay_readable(make: Make) -> None:
    classes = [f"class {i:03d}" for i in range(102)]
    page, tree = write(make(classes=classes, n_val=1020, n_test=2040))
    assert 'class="heatmap"' in page
    assert 'class="confusion"' not in page
    assert "The 40 smallest of 102 classes" in tree.text
    assert len(page) < 1_000_000
    page, tree = write(make(classes=[f"c{i}" for i in range(400)], n_val=800, n_test=1200))
    assert "The 60 of 400 classes that take part in most mistakes" in tree.text
    assert "The 300 weakest of 400 classes" in tree.text
    assert len(page) < 1_500_000


def test_long_names_of_classes_leave_room_for_the_matrix(make: Make) -> None:
    classes = [f"a very long name that many classes share, number {i}" for i in range(4)]
    page, _ = write(make(classes=classes))
    matrix = page[page.index('class="confusion"') : page.index("</table>", page.index('class="confusion"'))]
    shown = re.findall(r'<th scope="(?:col|row)" title="([^"]*)">(?:<span>)?<bdi>([^<]*)</bdi>', matrix)
    assert [title for title, _ in shown] == classes * 2
    assert len({name for _, name in shown}) == 4, "they can still be told apart"
    assert all(len(name) <= 24 and "…" in name for _, name in shown)


def test_texts_are_not_called_pictures(make: Make) -> None:
    run = make()
    run.write("data.json", {**run.read("data.json"), "modality": "text"})
    assert "of the test texts are right" in write(run)[1].text


def test_non_finite_numbers_do_not_break_a_chart(make: Make) -> None:
    run = make()
    events = run.path / "events.jsonl"
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    for line in lines:
        if line["event"] == "EpochDone" and line["epoch"] == 3:
            line |= {"train_loss": float("nan"), "val_loss": float("inf"), "lr": 0.0}
    events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, _ = write(run)
    assert not re.search(r'"[^"]*\b(nan|inf)\b[^"]*"', re.sub(r"data:[^\"]*", "", page))


def test_an_epoch_repeated_after_an_interruption_counts_once(make: Make) -> None:
    run = make()
    page, _ = write(run)
    events = run.path / "events.jsonl"
    lines = events.read_text().splitlines()
    last = next(line for line in reversed(lines) if "EpochDone" in line)
    events.write_text("\n".join([*lines, last]) + "\n")
    assert write(run)[0] == page


def test_oversized_previews_are_left_out(make: Make) -> None:
    run = make()
    before = report.write(run).stat().st_size
    rows = Evaluation.load(run.path / "predictions-test.npz").worst(12)
    (run.path / "previews" / f"test-{rows[0]}.jpg").write_bytes(b"\xff" * 400_000)
    assert report.write(run).stat().st_size < before


def test_the_user_sees_the_mistakes_that_were_made(make: Make) -> None:
    run = make()
    _, tree = write(run)
    evaluation = Evaluation.load(run.path / "predictions-test.npz")
    label, predicted, count = evaluation.most_confused(1)[0]
    assert re.search(rf"{label}\s+→\s+{predicted}\s+{count}\s+of 80", tree.text)
    row = int(evaluation.worst(1)[0])
    assert f"test/{row:04d}.jpg" in tree.text
    assert int(np.trace(evaluation.confusion())) == int(evaluation.correct.sum())


def test_report_imports_nothing_heavy() -> None:
    code = (
        "import sys, headstart.report\n"
        "print([m for m in ('torch', 'scipy', 'sklearn', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_texts_stand_out_from_their_grounds(mode: int) -> None:
    style = (Path(report.__file__).parent / "page.css").read_text()
    found = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style)
    colours = {name: (light, dark)[mode] for name, light, dark in found}
    pairs = [(text, ground) for text in ("ink", "muted") for ground in ("paper", "surface", "sunk")]
    pairs += [("accent", "paper"), ("accent", "accent-soft"), ("surface", "accent"), ("miss", "paper")]
    pairs += [("warn", "warn-soft"), ("bad", "bad-soft"), ("muted", "warn-soft"), ("warn", "paper"), ("bad", "paper")]
    for text, ground in pairs:
        high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def change(path: Path, **values: object) -> None:
    stored = json.loads(path.read_text())
    path.write_text(json.dumps({**stored, **values}))


def test_the_command_names_the_file_where_it_lies(make: Make) -> None:
    run = make()
    path = run.path / "experiment.yaml"
    stored = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**stored, "output_dir": "some/runs"}))
    _, tree = write(run)
    assert f"headstart fit --config some/runs/{run.name}/experiment.yaml" in tree.text
    assert "From the folder that the run was started in" in tree.text


@pytest.mark.parametrize(
    ("source", "uri", "told"),
    [
        (
            "photos/",
            "metric",
            "# functions: metric, plan.1.thaw.augment "
            "headstart.fit(config='some/runs/{}/experiment.yaml', metric=metric, plan=plan)",
        ),
        (None, "", "# data: photos/ headstart.fit(data, config='some/runs/{}/experiment.yaml')"),
        (
            "photos/",
            "object:Net",
            "# module: object:Net headstart.fit(config='some/runs/{}/experiment.yaml', backbone=module)",
        ),
        (None, "object:Net", "headstart.fit(data, config='some/runs/{}/experiment.yaml', backbone=module)"),
    ],
)
def test_what_was_given_as_an_object_is_given_again(make: Make, source: str | None, uri: str, told: str) -> None:
    run = make()
    path = run.path / "experiment.yaml"
    stored = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**stored, "output_dir": "some/runs", "data": {"source": source}}))
    run.write("model/headstart.json", {"origin": {"uri": uri}})
    if uri == "metric":
        run.write("identity.json", {"functions": {"plan.1.thaw.augment": "ab", "metric": "cd"}})
    _, tree = write(run)
    assert told.format(run.name) in tree.text
    assert "headstart fit --config" not in tree.text


def test_a_class_without_rows_has_no_score_and_is_not_counted(make: Make) -> None:
    answers = Evaluation("test", np.arange(4), np.eye(3)[[0, 0, 1, 0]], np.array([0, 0, 1, 1]), ("a", "b", "c"))
    row = next(row for row in class_table(answers).rows if row.name == "c")
    assert (row.n, row.precision, row.recall, row.f1, row.bar) == (0, "–", "–", "–", "")
    run = make()
    stored = Evaluation.load(run.path / "predictions-test.npz")
    replace(
        stored,
        names=None,
        classes=(*stored.classes, "unseen"),
        logits=np.pad(stored.logits, ((0, 0), (0, 1)), constant_values=-50),
    ).save(run.path / "predictions-test.npz")
    assert "over the 7 of 8 classes with rows or answers" in write(run)[1].text


def test_the_probe_curve_names_its_metric(make: Make) -> None:
    run = make()
    stage = next(run.path.glob("stages/00*/result.json"))
    change(stage, probe={**json.loads(stage.read_text())["probe"], "metric": "log_loss"})
    assert "log-loss on validation rows by strength of regularisation; lower is better" in write(run)[1].text


def test_decisions_show_the_facts_that_say_something() -> None:
    facts = {
        "name": "fp32",
        "channels_last": True,
        "seconds": {},
        "failed": {},
        "timed": {"fp32": 0.12345678},
        "x": None,
    }
    assert evidence._facts(facts) == "name: fp32, channels last: yes, timed: (fp32: 0.1235)"
    assert evidence._facts({"seconds": {}, "failed": {"a": {}}}) == ""


def test_rates_near_zero_do_not_stretch_their_axis(make: Make) -> None:
    run = make()
    events = run.path / "events.jsonl"
    events.write_text(re.sub(r'"lr": [\d.e-]+', '"lr": 1e-10', events.read_text(), count=1))
    page, _ = write(run)
    assert not {"1e−10", "1e−8", "1e−9"} & set(re.findall(r"1e−\d+", page))
    assert ">1e−6<" in page


def test_bars_of_mistakes_are_shares_of_their_class(make: Make) -> None:
    run = make()
    found = contents.read(run)
    assert found.test is not None
    for pair in pairs(found, found.test):
        assert f'width="{100 * pair.count / pair.total:.2f}%"' in pair.bar


def test_the_backbone_is_named_at_the_top(make: Make) -> None:
    found = contents.read(make())
    named = story.headline(replace(found, origin={"uri": "torchvision/resnet18"}))
    assert "The model is torchvision/resnet18 after stage" in named.lead
    chosen = replace(found, origin={}, experiment={}, decisions=[{"topic": "backbone", "choice": "timm/vit"}])
    assert "timm/vit" in story.headline(chosen).lead
