"""The model card: what the run holds is in it, what is the user's alone is not, and names cannot act."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt

from headstart.core.run import Run
from headstart.report import contents, metadata, modelcard
from headstart.report.formats import markdown
from headstart.report.metadata import Published
from headstart.report.modelcard import card

from .conftest import make_run
from .test_page import HOSTILE

Make = Callable[..., Run]
ABOUT = Published("me/pets", "headstart", "", "bsd-3-clause", "3 x 224 x 224", False)
NAMES = (
    *HOSTILE,
    "a\n# heading",
    "---\nlicense: mit",
    "| a | b |",
    "[x](https://evil.example)",
    "![](https://evil.example/x.png)",
    "<img src=https://evil.example/x.png>",
    "www.evil.example",
    "`code` **bold** _it_ ~~no~~ $x$ :smile: @someone #1",
    "\\`\\*",
    "&lt;b&gt;",
    "evil: yes\n- {a: [b",
)


def parts(text: str) -> tuple[dict[str, Any], str]:
    """The YAML head and the Markdown."""
    _, head, body = text.split("---\n", 2)
    return yaml.safe_load(head), body


def shape(body: str) -> list[Any]:
    """What the Markdown makes, without its words."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(body)
    inside = [[child.type for child in token.children or () if child.type != "text_special"] for token in tokens]
    return [
        (token.type, token.tag, [kind for kind, before in zip(kinds, ["", *kinds], strict=False) if kind != before])
        for token, kinds in zip(tokens, inside, strict=True)
    ]


def write(run: Run, about: Published = ABOUT, **changed: Any) -> str:
    return card(replace(contents.read(run), **changed), about)


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The card of a run with plain names."""
    return write(make_run(tmp_path_factory.mktemp("benign") / "photos"))


def test_the_baseline_on_the_test_rows_is_in_the_card(make: Make) -> None:
    run = make()
    result = run.read("result.json")
    entry = {"name": "pixels", "metrics": {"accuracy": {"value": 0.613, "low": 0.57, "high": 0.65, "n": 560}}}
    gain = {"value": 0.3, "low": 0.25, "high": 0.35, "p": 1e-6, "n": 560}
    run.write("result.json", {**result, "baselines": [{**entry, "gain": gain}]})
    told = "On the same test rows the best baseline without a backbone (pixels) reaches 61.3%: +"
    assert f"the test rows were read once. {told}" in write(run)


def test_the_evidence_is_in_the_card(make: Make) -> None:
    run = make()
    head, body = parts(write(run))
    test = run.read("result.json")["metrics"]["test"]["accuracy"]
    assert (
        f"| accuracy | {100 * test['value']:.1f}% | {100 * test['low']:.1f}–{100 * test['high']:.1f}% | 560 |" in body
    )
    for name in ("baseline\\: pixels", "probe", "thaw-quarter", "thaw-half", "thaw-all"):
        assert f"| {name} |" in body
    assert "**kept, published here**" in next(line for line in body.splitlines() if line.startswith("| thaw-half"))
    assert "points (" in body, "paired differences"
    assert "the test rows were read once" in body
    assert "## Calibration" in body
    assert "5f1c" * 16 in body
    assert "near\\_duplicates" in body
    assert "torchvision 0.30.0" in body
    results = model_index_to_eval_results(head["model-index"])[1]
    assert [each.metric_type for each in results][:2] == ["accuracy", "f1"]
    assert results[0].metric_value == pytest.approx(test["value"], abs=1e-6)
    assert {each.dataset_split for each in results} == {"test"}
    assert ModelCardData(**head).license == "bsd-3-clause"


def test_of_many_classes_those_with_the_lowest_recall_are_named(make: Make) -> None:
    run = make(classes=[f"class{n:02d}" for n in range(modelcard.SHOWN + 5)])
    shown = contents.read(run).shown
    assert shown is not None
    text = write(run)
    recall = {each.name: each.recall.value for each in shown.per_class()}
    told = [name for name in recall if f"| {name} |" in text]
    assert len(told) == modelcard.SHOWN
    assert max(recall[name] for name in told) <= min(recall[name] for name in recall.keys() - set(told))
    assert f"The {modelcard.SHOWN} of {len(recall)} with the lowest recall" in text


def test_the_calibration_error_is_told_without_the_temperature_first(make: Make) -> None:
    run = make()
    shown, temperature = contents.read(run).shown, run.read("result.json")["temperature"]
    assert shown is not None
    raw, better = (100 * each.reliability().ece for each in (shown, shown.with_temperature(temperature)))
    assert raw > better + 0.1
    assert re.search(rf"rows?: {raw:.1f}% \(.*\) without it, {better:.1f}% \(.*\) with it", write(run))


def test_a_difference_of_another_metric_is_not_told_as_one_of_this() -> None:
    verdict = {"metric": "accuracy", "difference": {"value": 0.02, "low": -0.01, "high": 0.05}}
    assert modelcard._against(verdict, "accuracy") == "+2.0 points (−1.0 to +5.0 points, paired): "
    assert modelcard._against(verdict, "macro_f1") == ""


def test_names_and_places_of_rows_are_not(make: Make) -> None:
    text = write(make(note="/data/customers were given"))
    for leak in ("0.jpg", "photos/", "/data", "customers", "1 file is cut off", "normalisation scores"):
        assert leak not in text, leak


def test_limits_are_told(make: Make) -> None:
    few = write(make(n_test=0, n_val=42), replace(ABOUT, licence=""))
    assert "which is optimistic" in few
    assert "Only 42 rows" in few
    assert "licence of the weights that training started from is not known" in few
    assert "license" not in parts(few)[0]
    run = make()
    run.write("test_reads.json", {"reads": 3})
    run.write("result.json", {**run.read("result.json"), "test_reads": 3, "beaten_by": "pixels"})
    many = write(run)
    assert "were read 3 times" in many
    assert "without a backbone (pixels) is as good" in many


def test_an_unfinished_run_still_gives_a_card(make: Make) -> None:
    head, body = parts(write(make(finished=False, stages=1)))
    assert "model-index" not in head
    assert "## Limits" in body


def test_new_rows_of_an_export_are_called_as_they_are_given(make: Make) -> None:
    run, about = make(), replace(ABOUT, onnx=True)
    assert "headstart predict pets/export new/" in write(run, about)
    run.write("data.json", {**run.read("data.json"), "modality": "text"})
    assert "headstart predict pets/export new.csv" in write(run, about)


@pytest.mark.parametrize("start", range(0, len(NAMES), 7))
def test_hostile_names_are_harmless(make: Make, benign: str, start: int) -> None:
    chosen = [f"{NAMES[(start + i) % len(NAMES)]} {i}" for i in range(7)]
    titles = [f"{NAMES[(start + i) % len(NAMES)]}" for i in range(4)]
    hostile = write(make(classes=chosen, titles=titles))
    assert parts(hostile)[0] == parts(benign)[0]
    assert shape(parts(hostile)[1]) == shape(parts(benign)[1])
    assert not re.search(r"evil\S*(?<!\\)://|(?<!\\)://\S*evil|www\.|(?<!\\)@someone|\x1b", hostile)


def test_the_comparison_would_notice_markup() -> None:
    plain = shape("| a |\n| --- |\n| name |\n")
    for name in ("<b>x", "[x](y)", "`x`", "**x**", "![](x)", "a | b\n\n# c", "~~x~~"):
        assert shape(f"| a |\n| --- |\n| {name} |\n") != plain
        assert shape(f"| a |\n| --- |\n| {markdown(name)} |\n") == plain


@pytest.mark.parametrize(
    ("uri", "library", "weights", "wanted"),
    [
        ("timm/resnet18.a1_in1k", "timm", "pretrained:a1_in1k", "timm/resnet18.a1_in1k"),
        ("timm/resnet18", "timm", "pretrained:a1_in1k", "timm/resnet18.a1_in1k"),
        ("timm/resnet18", "timm", "random", ""),
        ("timm/resnet18", "timm", "file:x.safetensors", ""),
        ("google/vit-base@v1", "transformers", "pretrained", "google/vit-base"),
        ("someone/net", "timm", "pretrained", "someone/net"),
        ("google/vit-base (fine-tuned: pets)", "transformers", "fine-tuned", "google/vit-base"),
        ("my-folder", "transformers", "pretrained", ""),
        ("torchvision/resnet18", "torchvision", "pretrained:V1", ""),
    ],
)
def test_the_base_model_is_a_repository(uri: str, library: str, weights: str, wanted: str) -> None:
    assert metadata.base_model({"uri": uri, "library": library, "weights": weights}) == wanted


def test_the_head_for_a_known_base_and_data(make: Make) -> None:
    origin = {"uri": "google/vit-base", "library": "transformers", "weights": "pretrained"}
    about = replace(ABOUT, library="transformers", dataset="someone/pets", licence="My Own Licence, v2: see\nfile")
    text = write(make(), about, origin=origin)
    head = parts(text)[0]
    assert (head["base_model"], head["base_model_relation"]) == (["google/vit-base"], "finetune")
    assert (head["license"], head["license_name"]) == ("other", "my-own-licence-v2-see-file")
    assert head["datasets"] == ["someone/pets"]
    assert head["model-index"][0]["results"][0]["dataset"]["type"] == "someone/pets"
    assert 'pipeline("image-classification", model="me/pets")' in text
