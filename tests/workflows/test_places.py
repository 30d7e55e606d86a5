"""Where a run lives: it is known by its rows and by its network, whatever the network's file or name is."""

from __future__ import annotations

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from headstart.core.errors import ArtefactError
from headstart.core.events import Notice
from headstart.models import backbone
from headstart.models.model import Model


class Pooling(torch.nn.Module):
    """One convolution, pooled in one of two ways: the weights do not tell which."""

    pool = staticmethod(torch.mean)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 8, 3)

    def forward(self, inputs):
        return self.pool(self.conv(inputs), dim=(2, 3))


def moved(file, by):
    """The weights of ``file``, all a little further, under the same name."""
    save_file(
        {name: value + by if value.is_floating_point() else value for name, value in load_file(file).items()}, file
    )


@pytest.fixture
def own_weights(tmp_path):
    file = tmp_path / "own.safetensors"
    body = backbone.load("builtin/tiny", pretrained=False, image_size=32)
    save_file(body.module.state_dict(), file)
    return file


def test_other_weights_under_the_same_name_are_another_run(fit, pictures, own_weights):
    rows = pictures(30)
    first = fit(rows, weights=str(own_weights))
    assert fit(rows, weights=str(own_weights)).path == first.path
    moved(own_weights, 0.01)
    second = fit(rows, weights=str(own_weights))
    assert (first.path.name, second.path.name) == ("run", "run-2")
    moved(own_weights, 0.01)
    with pytest.raises(ArtefactError, match="differs in the weights"):
        fit(rows, weights=str(own_weights), resume=True)
    assert not (fit.folder / "run-3").exists()


def test_a_run_that_cannot_be_resumed_says_what_differs(fit, pictures):
    rows = pictures(30)
    run = fit(rows)
    with pytest.raises(ArtefactError) as caught:
        fit(rows, val=0.3, metric="macro_f1", resume=True)
    told = str(caught.value)
    assert told.startswith(f"{run.path}: cannot be resumed, for it differs in data.split.val (0.15 there, 0.3 here), m")
    assert 'macro_f1" here)\n' in told  # and in nothing else
    with pytest.raises(ArtefactError, match="for it differs in the rows"):
        fit(pictures(31), resume=True)
    fit(rows, val=0.3)
    with pytest.raises(ArtefactError) as caught:
        fit(rows, val=0.2, resume=True)
    assert [problem.where for problem in caught.value.problems] == [str(run.path), f"{run.path}-2"]
    assert [folder.name for folder in sorted(fit.folder.iterdir())] == ["run", "run-2"]


def test_settings_count_and_not_how_they_are_written(fit, pictures):
    rows = pictures(30)
    run = fit(rows)
    file = run.path / "experiment.yaml"
    turned = dict(reversed(yaml.safe_load(file.read_text()).items()))
    file.write_text("# by hand\n" + yaml.safe_dump(turned, sort_keys=False))
    assert fit(rows, resume=True).path == run.path
    file.write_text("a: [")
    with pytest.raises(ArtefactError, match="cannot be read"):
        fit(rows, resume=True)


def test_a_retrained_local_backbone_is_another_run(fit, pictures):
    rows = pictures(30)
    folder = fit(rows, name="before").model_folder
    again = {"backbone": str(folder), "image_size": None}
    names = [fit(rows, **again).path.name, fit(rows, **again).path.name]
    model = Model.load(folder)
    with torch.no_grad():
        next(model.backbone.module.parameters()).add_(0.01)
    model.save(folder)
    assert [*names, fit(rows, **again).path.name] == ["run", "run", "run-2"]


@pytest.mark.parametrize("given", ["object", "dotted"])
def test_an_own_module_with_another_forward_is_another_run(fit, pictures, monkeypatch, given):
    rows = pictures(30)
    module = Pooling if given == "object" else f"{__name__}.Pooling"

    def folder():
        return fit(rows, backbone=module() if given == "object" else module).path.name

    names = [folder(), folder()]
    monkeypatch.setattr(Pooling, "pool", staticmethod(torch.amax))
    assert [*names, folder()] == ["run", "run", "run-2"]


def test_another_number_of_threads_is_the_same_network(monkeypatch):
    from headstart.workflows import places

    body = backbone.load("builtin/tiny", pretrained=False, image_size=32)
    known = places._network(body)
    near = {**known, "answers": [value * (1 + 1e-6) for value in known["answers"]]}
    assert places._same_network(near, known)
    assert not places._same_network({**known, "answers": [value * 1.1 for value in known["answers"]]}, known)
    assert not places._same_network({**known, "weights": "other"}, known)
    assert not places._same_network(None, known)
    assert not places._same_network({"weights": known["weights"]}, known)


def test_a_cache_that_takes_nothing_is_told_and_costs_no_run(fit, pictures, tmp_path, monkeypatch):
    place = tmp_path / "cache"
    place.write_bytes(b"")  # a file, where a folder is to be
    monkeypatch.setenv("HEADSTART_CACHE", str(place))
    run = fit(pictures(40))
    assert run.model_folder.is_dir()
    (told,) = [event for event in fit.said(Notice) if event.kind == "cache"]
    assert str(place) in told.message
    assert "HEADSTART_CACHE" in told.remedy
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "other"))
    fit(pictures(40), name="other")
    assert "cache" not in fit.kinds()


@pytest.mark.parametrize("column", ["split", "patient"])
def test_other_splits_or_groups_are_another_run(fit, pictures, tmp_path, column):
    from PIL import Image

    inputs, labels = pictures(36)
    for number, picture in enumerate(inputs):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")

    def written(shift):
        lines = ["image,label,split,patient"] if column == "split" else ["image,label,patient"]
        for number, label in enumerate(labels):
            split = ("train", "val", "test", "train")[(number // 3 + shift) % 4]
            told = [split] if column == "split" else []
            patient = number // 3 if column == "split" else (number + shift) // 3
            lines.append(",".join([f"{number}.png", label, *told, str(patient)]))
        (tmp_path / "table.csv").write_text("\n".join(lines), encoding="utf-8")
        return str(tmp_path / "table.csv")

    own = {} if column == "split" else {"group_by": "patient"}
    first = fit(written(0), **own)
    assert fit(written(0), **own).path == first.path
    assert fit(written(1), **own).path != first.path
