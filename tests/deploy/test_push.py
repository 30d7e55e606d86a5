"""Pushing to a stand-in of the Hub: what arrives, what never leaves, and what is said where it cannot be done."""

from __future__ import annotations

import json
import os
import re
import shutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard, constants
from typer.testing import CliRunner

import headstart
from headstart.cli import app
from headstart.core import manifest
from headstart.core.errors import ArtefactError, BackboneError, ConfigError, HeadstartError, Unreachable
from headstart.core.events import Event, Notice
from headstart.core.run import Run
from headstart.deploy import folder, hub
from headstart.deploy.predictor import Predictor
from headstart.models import backbone, download, heads, published
from headstart.models.model import Model
from headstart.workflows import push as pushing
from headstart.workflows.predict import load
from headstart.workflows.push import push

from .. import words
from .standin import TOKEN, Hub, running

MODEL = {"README.md", "golden.npz", "headstart.json", "labels.json", "manifest.json", "model.safetensors",
         "preprocess.json"}  # fmt: skip

# The Hub's client sends small files in a way that its own HTTP library has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def run(toy_run: Run, exported: Path, tmp_path: Path) -> Run:
    """A copy of an exported run that may be changed."""
    place = tmp_path / "pets"
    shutil.copytree(toy_run.path, place)
    return Run(place)


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The stand-in, and a client that talks to it and nothing else."""
    with running() as found:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = f"{found.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf"))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
        remembered = download.hub_files
        remembered.cache_clear()
        yield found
        remembered.cache_clear()


def onnx_files(run: Run) -> set[str]:
    verdict = folder.read_verdict(run.path / "export")
    kept = {each["file"] for each in verdict["variants"] if each["name"] in verdict["accepted"]}
    return {f"export/{name}" for name in kept | {"model.onnx", "verdict.json", "golden.npz", "manifest.json"}}


def local_bytes(place: Path) -> dict[str, bytes]:
    return {file.relative_to(place).as_posix(): file.read_bytes() for file in place.rglob("*") if file.is_file()}


def test_exactly_the_list_arrives_and_opens_again(run: Run, online: Hub, tmp_path: Path) -> None:
    said: list[Event] = []
    done = push(run, "me/pets", on_event=said.append)
    arrived = {name: data for name, data in online.files("me/pets").items() if name != ".gitattributes"}
    assert set(arrived) == MODEL | onnx_files(run)
    assert arrived == local_bytes(done.folder)
    assert done.files == {name: len(data) for name, data in arrived.items()}
    assert done.address == f"{online.url}/me/pets/commit/{online.commit('me/pets')}"
    assert online.repos["me/pets"]["private"], "private unless told"
    assert set(online.cards) == {arrived["README.md"].decode()}, (
        "the Hub was asked whether the head of the card is right"
    )

    inputs = np.zeros((3, 40, 40, 3), np.uint8)
    inputs[1] = 255
    wanted = load(run).predict(list(inputs))
    fetched = headstart.load("hf://me/pets").predict(list(inputs))
    assert [row.scores for row in fetched] == [row.scores for row in wanted]
    assert load(Path("hf://me/pets@" + online.commit("me/pets"))).classes == load(run).classes
    place = published.fetch("me/pets", offline=True)  # it is here now
    assert set(local_bytes(place)) == MODEL
    shutil.copytree(done.folder / "export", tmp_path / "alone")
    assert [row.label for row in Predictor(tmp_path / "alone").predict(list(inputs))] == [r.label for r in wanted]

    start = backbone.load("me/pets")
    assert start.origin.uri == "builtin/tiny (fine-tuned: me--pets)"
    assert start.source_head is not None
    assert start.source_head.labels == load(run).classes


def test_rows_of_the_user_are_in_none_of_the_files(run: Run) -> None:
    place = push(run, "me/pets", dry_run=True).folder
    rows = np.load(run.model_folder / "golden.npz")["inputs"]
    for file in (place / "golden.npz", place / "export" / "golden.npz"):
        noise = np.load(file)["inputs"]
        assert noise.shape[1:] == rows.shape[1:]
        assert not any(np.array_equal(row, other) for row in rows for other in noise)
    names = [name for split in run.read("rows.json").values() for name in split]
    for name, data in local_bytes(place).items():
        assert not [row for row in names if row.encode() in data], name
        assert b"photos" not in data, name
        assert str(run.path).encode() not in data, name


def test_secrets_and_strays_never_leave(run: Run, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "canary-5d1f0c"
    strays = [".env", "notes.txt", "model/optimizer.bin", "model/.netrc", "export/customers.csv", "hub/left.txt",
              "export/model.onnx.bak", "model/previews/1.jpg"]  # fmt: skip
    for name in strays:
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text(canary)
    (run.path / "hub" / "headstart.json").write_text("{}")  # of an earlier push
    for place in (run.model_folder, run.path / "export"):
        manifest.seal(place)
    run.record(Notice("warning", "unreadable", f"/home/{canary}/photos/1.jpg cannot be read"))
    run.write("data.json", {**run.read("data.json"), "source": f"/data/{canary}/photos", canary: canary})
    run.write("environment.json", {**run.read("environment.json"), "hostname": canary})
    verdict = json.loads((run.path / "export" / "verdict.json").read_text())
    manifest.write_json(run.path / "export" / "verdict.json", {**verdict, "note": canary})
    manifest.seal(run.path / "export")
    monkeypatch.setenv("WANDB_API_KEY", canary)
    said: list[Event] = []
    done = push(run, "me/pets", on_event=said.append)
    sent = {**online.files("me/pets"), **local_bytes(done.folder)}
    assert set(done.files) == MODEL | onnx_files(run)
    assert not [name for name, data in sent.items() if canary.encode() in data or TOKEN.encode() in data]
    assert TOKEN not in repr(said) + repr(done)
    assert not [file for file in run.path.rglob("*") if file.is_file() and TOKEN.encode() in file.read_bytes()]


@pytest.mark.parametrize("planted", ["token", "environment", "run", "home"])
def test_a_secret_in_what_would_leave_stops_it(
    planted: str, run: Run, online: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET", "s3cr3t-value")
    texts = {"token": TOKEN, "environment": "s3cr3t-value", "run": f"{run.path}/x", "home": f"{Path.home()}/x"}
    if planted == "home":
        monkeypatch.setenv("HOME", "/homes/someone")
        texts["home"] = "/homes/someone/x"
    card = pushing.modelcard.card
    monkeypatch.setattr(pushing.modelcard, "card", lambda *given: card(*given) + texts[planted])
    with pytest.raises(ArtefactError, match="nothing was uploaded") as caught:
        push(run, "me/pets")
    assert "README.md" in str(caught.value.problems[0].where)
    assert TOKEN not in str(caught.value)
    assert "s3cr3t-value" not in str(caught.value)
    assert "me/pets" not in online.repos


def test_a_stray_file_in_the_prepared_folder_is_refused(run: Run, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = pushing.prepare

    def prepared(*given: Any, **named: Any) -> Path:
        place = prepare(*given, **named)
        (place / "extra.bin").symlink_to("/etc/hosts")
        return place

    monkeypatch.setattr(pushing, "prepare", prepared)
    with pytest.raises(ArtefactError, match=r"not on the list.*extra\.bin"):
        push(run, "me/pets")
    assert "me/pets" not in online.repos


def test_a_dry_run_needs_no_network_and_no_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(hub, "look", lambda *_: pytest.fail("asked the Hub"))
    told = CliRunner().invoke(app, ["push", str(run.path), "me/pets", "--dry-run"])
    assert told.exit_code == 0, told.output
    assert "nothing was uploaded" in told.output
    assert all(name in told.output for name in MODEL | onnx_files(run))


@pytest.mark.parametrize("name", ["pets", "me/pets/x", "../x/y", "me/pets.git", "me/a--b", "me/..", "m e/pets", "me/"])
def test_names_that_the_hub_does_not_take(name: str, run: Run) -> None:
    with pytest.raises(ConfigError, match="not a name of a repository"):
        push(run, name, dry_run=True)


def test_without_a_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(ConfigError, match="no token") as caught:
        push(run, "me/pets")
    assert "hf auth login" in str(caught.value)


def refused(error: type[HeadstartError], match: str, run: Run, repo: str, **options: Any) -> str:
    with pytest.raises(error, match=match) as caught:
        push(run, repo, **options)
    told = "".join(traceback.format_exception(caught.value))
    assert os.environ["HF_TOKEN"] not in told, "a token in an error, or in what caused it"
    return told


def test_without_a_network(run: Run, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(Unreachable, "offline was asked for", run, "me/pets")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://user:{TOKEN}@127.0.0.1:9")
    assert "--dry-run" in refused(Unreachable, "does not answer", run, "me/pets")
    with pytest.raises(Unreachable, match="cannot be had"):
        headstart.load("hf://me/pets")


def test_a_token_that_the_hub_does_not_know(run: Run, online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    # of an address with https the client takes this reply for a repository that does not exist
    monkeypatch.setattr("huggingface_hub.utils._http.REPO_API_REGEX", re.compile("/api/models/.+"))
    monkeypatch.setenv("HF_TOKEN", "hf_WrongTokenOfTheTests")
    refused(ConfigError, "does not accept the token", run, "me/pets")
    assert not online.repos
    assert not (run.path / pushing.FOLDER).exists(), "what can be refused is refused before any work"


def test_another_owner(run: Run, online: Hub) -> None:
    refused(ConfigError, "does not let this token write", run, "other/pets")


def test_a_name_that_is_taken(run: Run, online: Hub) -> None:
    online.add("me/pets", **{"weights.bin": b"theirs", "README.md": b"theirs", "config.json": b"{}"})
    before = dict(online.files("me/pets"))
    assert "--update" in refused(ConfigError, "Headstart did not push", run, "me/pets")
    assert online.files("me/pets") == before
    push(run, "me/pets", update=True)
    after = online.files("me/pets")
    assert after["weights.bin"] == b"theirs", "files that are not ours stay"
    assert "config.json" not in after, "what would make the libraries open something else goes"
    assert after["README.md"].startswith(b"---\nlibrary_name: headstart")
    refused(ConfigError, "that Headstart pushed", run, "me/pets")
    online.repos["me/pets"]["private"] = False
    refused(ConfigError, "is public", run, "me/pets", update=True)
    push(run, "me/pets", update=True, private=False)


def test_an_empty_repository_is_free(run: Run, online: Hub) -> None:
    online.add("me/pets")
    push(run, "me/pets")
    assert "model.safetensors" in online.files("me/pets")


def test_damage_is_noticed_before_anything_leaves(run: Run, online: Hub) -> None:
    with open(run.model_folder / "model.safetensors", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x55")
    refused(ArtefactError, "is damaged", run, "me/pets")
    assert "me/pets" not in online.repos


def test_an_export_of_another_model_is_refused(run: Run) -> None:
    model = load(run).model
    model.head.last.bias.data += 1
    shutil.rmtree(run.model_folder)
    model.save(run.model_folder)
    with pytest.raises(ArtefactError, match="not of this model"):
        push(run, "me/pets", dry_run=True)


def test_without_an_export(run: Run) -> None:
    shutil.rmtree(run.path / "export")
    said: list[Any] = []
    done = push(run, "me/pets", dry_run=True, on_event=said.append)
    assert set(done.files) == MODEL
    assert "onnx" in {event.kind for event in said if isinstance(event, Notice)}
    assert "onnx" not in (done.folder / "README.md").read_text().partition("---\n\n")[0]


def test_a_repository_without_a_model(run: Run, online: Hub) -> None:
    online.add("me/other", **{"README.md": b"x"})
    with pytest.raises(ArtefactError, match="no model of Headstart"):
        headstart.load("hf://me/other")
    with pytest.raises(BackboneError, match=r"no config\.json"):
        backbone.load("me/other")


def test_a_commit_that_is_a_path_is_refused(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "hub_files", lambda *_: ("../../elsewhere", frozenset({"headstart.json"})))
    with pytest.raises(ArtefactError, match="no model of Headstart"):
        published.fetch("me/pets")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"Bearer {TOKEN} refused", "Bearer"),
        ("https://user:password@host/x", "password"),
        ("token hf_ABCDEFGHIJ was wrong", "ABCDEFGHIJ"),
    ],
)
def test_errors_are_scrubbed(text: str, wanted: str) -> None:
    assert "***" in hub.scrubbed(text)
    assert wanted not in hub.scrubbed(text)
    assert hub.scrubbed("refused to opaque-token", "opaque-token") == "refused to ***", "whatever a token looks like"


def test_the_head_of_the_card_is_what_the_hub_reads(run: Run) -> None:
    place = push(run, "me/pets", dry_run=True).folder
    data = ModelCard.load(place / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("headstart", "image-classification", "apache-2.0")
    assert data.base_model is None, "builtin/tiny has random weights"
    assert data.model_name == "pets"
    measured = run.read("result.json")["metrics"]["val"]["accuracy"]
    result = next(each for each in data.eval_results if each.metric_type == "accuracy")
    assert result.metric_value == pytest.approx(measured["value"], abs=1e-6)
    assert f"n = {measured['n']}" in result.metric_name
    assert (result.dataset_type, result.dataset_split) == ("private", "validation")


def remodelled(run: Run, start: backbone.Backbone, modality: str) -> Model:
    """Put another network's model into the run, with random weights and all that a fit leaves."""
    shutil.rmtree(run.model_folder)
    shutil.rmtree(run.path / "export")
    head = heads.build("linear", start.feature_dim, 3, classes=load_classes(run), seed=1)
    model = Model(start, head, load_classes(run)).eval()
    torch.nn.init.normal_(model.head.last.weight)
    model.save(run.model_folder)
    run.write("data.json", {**run.read("data.json"), "modality": modality})
    return model


def load_classes(run: Run) -> tuple[str, ...]:
    return tuple(run.read("data.json")["classes"])


def test_timm_and_transformers_open_a_timm_network(run: Run, online: Hub) -> None:
    import timm
    from transformers import AutoModelForImageClassification

    model = remodelled(run, backbone.load("timm/test_resnet", pretrained=False, image_size=64), "image")
    place = push(run, "me/pets", licence="mit").folder
    data = ModelCard.load(place / "README.md").data
    assert (data.library_name, data.license) == ("timm", "mit")
    inputs = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(inputs)
        theirs = timm.create_model(f"local-dir:{place}", pretrained=True).eval()
        assert torch.allclose(theirs(inputs), wanted, atol=1e-6)
        fetched = timm.create_model("hf-hub:me/pets", pretrained=True).eval()
        assert torch.allclose(fetched(inputs), wanted, atol=1e-6)
        other = AutoModelForImageClassification.from_pretrained(place).eval()
        assert torch.allclose(other(inputs).logits, wanted, atol=1e-6)
    assert set(local_bytes(place)) == MODEL | {"config.json"}


def test_transformers_opens_a_language_model(run: Run, tmp_path: Path) -> None:
    import transformers

    kind = "AutoModelForSequenceClassification"
    start = backbone.load(str(words.network(tmp_path / "reader", kind=kind, num_labels=3)), pooling="native")
    model = remodelled(run, start, "text")
    said: list[Any] = []
    place = push(run, "me/reviews", dry_run=True, on_event=said.append).folder
    assert "licence" in {event.kind for event in said if isinstance(event, Notice)}, "of a folder it is not known"
    data = ModelCard.load(place / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-classification", None)
    texts = ["the film was lovely", "a dull and sad book with the soup"]
    pipe = transformers.pipeline("text-classification", model=str(place), top_k=None, device="cpu")
    found = headstart.load(place).predict(texts)
    for theirs, ours in zip(pipe(texts), found, strict=True):
        scores = {each["label"]: each["score"] for each in theirs}
        assert {each["label"]: each["score"] for each in ours.as_pipeline()} == pytest.approx(scores, abs=1e-5)
    assert model.temperature == 1
    assert set(local_bytes(place)) == MODEL | {"config.json", "tokenizer.json", "tokenizer_config.json"}


def test_the_command_pushes_and_tells_where(run: Run, online: Hub) -> None:
    told = CliRunner().invoke(app, ["push", str(run.path), "me/pets", "--public"])
    assert told.exit_code == 0, told.output
    assert f"{online.url}/me/pets/commit/" in told.output.replace("\n", "")
    assert TOKEN not in told.output
    assert not online.repos["me/pets"]["private"]
