"""Weight files: read without running code, put in strictly, refused with names."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from headstart.core.errors import BackboneError
from headstart.models import backbone as backbones
from headstart.models import weights
from headstart.models.backbones.builtin import WIDTHS, TinyNet

TINY = "builtin/tiny"


def tiny_state() -> dict[str, Tensor]:
    torch.manual_seed(11)
    return TinyNet(WIDTHS["tiny"]).state_dict()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
        lambda state: {"epoch": 3, "model_state_dict": state},
        lambda state: {f"_orig_mod.{name}": value for name, value in state.items()},
    ],
)
def test_state_dicts_and_their_usual_wrappings(wrap: Any, tmp_path: Path) -> None:
    state = tiny_state()
    torch.save(wrap(state), tmp_path / "w.pt")
    loaded = backbones.load(TINY, weights=tmp_path / "w.pt")
    assert all(torch.equal(value, loaded.module.state_dict()[name]) for name, value in state.items())


class Canary:
    """Runs code when unpickled without care."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (os.mkdir, (self.file,))


@pytest.mark.parametrize("name", ["w.pt", "w.bin", "w.pth", "w.safetensors"])
def test_pickled_code_never_runs(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for write in (
        lambda f: torch.save(Canary(str(canary)), f),
        lambda f: f.write_bytes(pickle.dumps(Canary(str(canary)))),
    ):
        write(tmp_path / name)
        with pytest.raises(BackboneError):
            backbones.load(TINY, weights=tmp_path / name)
        assert not canary.exists()


def test_whole_modules_and_odd_values_are_refused(tmp_path: Path) -> None:
    torch.save(TinyNet(WIDTHS["tiny"]), tmp_path / "module.pt")
    torch.save({**tiny_state(), "names": ["a"]}, tmp_path / "more.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    for name, words in {
        "module.pt": "state_dict",
        "more.pt": "more than tensors",
        "list.pt": "not a state dict",
    }.items():
        with pytest.raises(BackboneError) as caught:
            weights.read(tmp_path / name)
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234",
        struct.pack("<Q", 1 << 60) + b"{}",
        struct.pack("<Q", 100) + b"{}",
        struct.pack("<Q", 4) + b"\xff\xfe{}",
        struct.pack("<Q", 2) + b"[]",
    ],
)
def test_damaged_safetensors_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(BackboneError, match="safetensors"):
        weights.read(tmp_path / "w.safetensors")


def test_mutated_safetensors_never_raise_anything_else(tmp_path: Path) -> None:
    save_file({name: value.clone() for name, value in tiny_state().items()}, tmp_path / "good.safetensors")
    good = bytearray((tmp_path / "good.safetensors").read_bytes())
    header = int.from_bytes(good[:8], "little")
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, header + 8, (60,), generator=generator).tolist()
    for place in places:
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        (tmp_path / "bad.safetensors").write_bytes(bad)
        try:
            backbones.load(TINY, weights=tmp_path / "bad.safetensors")
        except BackboneError:
            continue


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = tiny_state()
    state["stem.0.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(BackboneError, match=r"not finite: stem\.0\.weight"):
        weights.read(tmp_path / "w.pt")


def test_misfits_name_keys_and_classes(tmp_path: Path) -> None:
    state = tiny_state()
    state["extra.weight"] = torch.zeros(1)
    state["head.weight"], state["head.bias"] = torch.zeros(37, 128), torch.zeros(37)
    del state["stem.0.weight"]
    state["blocks.0.first.0.weight"] = torch.zeros(2, 2)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(BackboneError) as caught:
        backbones.load(TINY, weights=tmp_path / "w.pt")
    message = str(caught.value)
    for words in (
        "1 missing (stem.0.weight)",
        "1 unexpected (extra.weight)",
        "(2, 2) instead of",
        "37 classes",
        "w.pt",
    ):
        assert words in message


def test_weights_of_another_network_are_refused_by_every_library(tmp_path: Path) -> None:
    torch.save(tiny_state(), tmp_path / "w.pt")
    for name in ("torchvision/resnet18", "timm/test_resnet"):
        with pytest.raises(BackboneError, match="do not fit"):
            backbones.load(name, weights=tmp_path / "w.pt")


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BackboneError, match="no such weights file"):
        backbones.load(TINY, weights="absent.pt")


def test_classifier_rows_of_the_file_are_kept(tmp_path: Path) -> None:
    from torchvision import models

    model = models.resnet18(num_classes=4)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    head = backbones.load("torchvision/resnet18", weights=tmp_path / "w.pth").source_head
    assert head is not None
    assert torch.equal(head.weight, model.fc.weight)
    assert head.labels == (), "four classes are not ImageNet's thousand"
    bare = {name: value for name, value in model.state_dict().items() if not name.startswith("fc.")}
    torch.save(bare, tmp_path / "bare.pth")
    assert backbones.load("torchvision/resnet18", weights=tmp_path / "bare.pth").source_head is None
