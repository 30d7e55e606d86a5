"""Two encoders of sounds as a user's own torch modules: thin wrappers of the modules that lie beside their weights.

``--backbone benchmarks.encoders.yamnet`` and ``benchmarks.encoders.speech``. Shapes: B rows, T samples, F frames.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks import assets
from headstart.data.modalities.audio import AudioSpec


class Encoder(nn.Module):
    """A network whose ``embed`` maps samples (B, T) to frames (B, F, D)."""

    def __init__(self, network: nn.Module, spec: AudioSpec) -> None:
        super().__init__()
        self.network = network
        self.spec = spec

    def forward(self, wave: Tensor) -> Tensor:
        return self.network.embed(wave)


def yamnet() -> Encoder:
    """YAMNet, trained on AudioSet: 1024 numbers for every patch of 0.96 s."""
    network = _beside("yamnet_torch").YAMNet()
    network.load_state_dict(load_file(_weights("yamnet_audioset.safetensors")))
    network.classifier = nn.Identity()
    return Encoder(network, AudioSpec(16_000))


def speech() -> Encoder:
    """Google's speech embedding: 96 numbers for 0.775 s, every 80 ms; it takes samples in the scale of 16 bits."""
    network = _beside("speech_embed_torch").SpeechEmbedding()
    network.load_state_dict(load_file(_weights("google_speech_embedding.safetensors")))
    return Encoder(network, AudioSpec(16_000, form="int16"))


def _weights(name: str) -> str:
    return str(assets.folder() / "weights" / name)


def _beside(name: str) -> Any:
    """The module of this name beside the weights, whose digest is known."""
    path = assets.folder() / "weights" / f"{name}.py"
    if assets.digest(path) != assets.ASSETS[f"weights/{name}.py"].sha256:
        raise ImportError(f"{path} is another than it was")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
