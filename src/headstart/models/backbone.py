"""A backbone: any network that turns a batch of inputs into features, with its blocks in depth order.

Shapes: B rows, D features, S classes of the source task; inputs (B, …) are what the modality's ``collate`` makes.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from headstart.core import registry
from headstart.core.errors import BackboneError
from headstart.models import blocks as chains
from headstart.models import identity, proof, resume, trial

INTAKES = "headstart.models.intakes"


@dataclass(frozen=True)
class Origin:
    """Where a backbone and its weights come from. ``weights`` is pretrained, random, file:NAME or given.

    ``data`` says what they were trained on, where that is known.
    """

    uri: str
    library: str
    weights: str
    revision: str = ""
    licence: str = ""
    sha256: str = ""
    data: str = ""


@dataclass(frozen=True)
class SourceHead:
    """The classifier the backbone was trained with: logits = features @ weight.T + bias.

    ``labels`` are the S class names (synonyms separated by commas), or empty where they are not known.
    """

    weight: Tensor  # (S, D)
    bias: Tensor  # (S,)
    labels: tuple[str, ...] = ()

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (B, S) of the source task."""
        return nn.functional.linear(features, self.weight.to(features), self.bias.to(features))


@dataclass(frozen=True)
class Verification:
    """Whether the blocks hold on real inputs; where not, ``blocks`` is what the backbone fell back to."""

    ok: bool
    blocks: tuple[str, ...]
    reason: str


class Backbone(nn.Module):
    """A network without its classifier; ``forward`` is ``features``.

    Args:
        module: maps what its intake makes of a batch to features, or to an output that holds them.
        spec: the inputs it expects (an ``ImageSpec``, ``TextSpec`` or ``AudioSpec``).
        origin: where it comes from.
        architecture: JSON values from which ``backbones/<library>.rebuild`` makes the same module, untrained.
        source_head: the classifier that was taken off, where its weights are known and it was linear.
        blocks: names inside ``module`` in depth order; discovered when not given.
        feature_dim: D, which is measured with one blank row; another number that is given is an error.
        call: keywords for every call of ``module``.
        classifier: name inside ``module`` where the classifier was ("" where it is not native): a linear head can be
            saved under that name, so that the library itself opens the file.
        intake: how the module is given its inputs and its output pooled; the modality's own where None.
        front_end: name inside ``module`` of a part before the blocks that stays frozen unless asked (the convolutions
            of wav2vec2); it becomes the first block, so that its output is cached.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        spec: Any,
        origin: Origin,
        architecture: Mapping[str, Any],
        source_head: SourceHead | None = None,
        blocks: tuple[str, ...] | None = None,
        feature_dim: int | None = None,
        call: Mapping[str, Any] | None = None,
        classifier: str = "",
        intake: nn.Module | None = None,
        front_end: str = "",
    ) -> None:
        super().__init__()
        self.module = module
        self.intake: Any = registry.find(INTAKES, spec.modality).Intake(spec) if intake is None else intake
        self.spec = spec
        self.origin = origin
        self.architecture = dict(architecture)
        self.source_head = source_head
        self.call = dict(call or {})
        self.classifier = classifier
        self.front_end = front_end
        self.checkpoint: Path | None = None  # the folder its weights came from: it may hold heads that were left out
        self.blocks = tuple(blocks) if blocks else chains.discover(module)
        if front_end and self.blocks != chains.WHOLE:
            self.blocks = (front_end, *self.blocks)
        self.verification: Verification | None = None
        self.measured: proof.Outside | None = None  # what verify found of the parameters in none of the blocks
        self.stand_in: Tensor | None = None  # what features() reads instead of its argument while resumed
        self.stand_in_lengths: Tensor | None = None  # of the rows that are resumed, where they differ
        self.stand_in_rows: int | None = 1  # rows of a stand-in; None: as many as the record has
        self.places: dict[int, tuple[int, ...]] = {}  # of what blocks return (see ``proof``), by their number
        self.uniform: int | None = None  # from this block on all answer alike: a record can stand for those below it
        self.blanks: dict[Any, Any] = {}
        self.pairs: dict[str, Any] = {}  # which layers are computed inside which (see ``sole.remembered``)
        self.compute = torch.float32  # type and layout of a copy that ``inference.Copies`` made
        self.casts: torch.dtype | None = None  # what autocast casts to in it (fp32: nothing); None: as the caller says
        self.channels_last = False
        self.feature_dim = trial.features(self, torch.from_numpy(spec.blank(1))).shape[1]
        if feature_dim not in (None, self.feature_dim):
            what = f"'{origin.uri}' says feature_dim = {feature_dim}, but gives {self.feature_dim} features a row"
            raise BackboneError(what, where="feature_dim", remedy="leave it out: it is measured")

    def block(self, index: int) -> nn.Module:
        return self.module.get_submodule(self.blocks[index])

    @property
    def front(self) -> int:
        """How many leading blocks are the front end: one, or none."""
        return int(bool(self.front_end) and self.blocks[0] == self.front_end)

    @property
    def modality(self) -> str:
        return str(self.spec.modality)

    @property
    def device(self) -> torch.device:
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def features(self, inputs: Tensor) -> Tensor:
        """Features (B, D): what the original classifier saw, pooled."""
        with self._casting():
            return self.intake(
                self.module,
                inputs if self.stand_in is None else self.stand_in,
                self.call,
                lengths=self.stand_in_lengths,
                dtype=self.compute,
                channels_last=self.channels_last,
            )

    def _casting(self) -> contextlib.AbstractContextManager[Any]:
        if self.casts is None:
            return contextlib.nullcontext()
        if self.casts == torch.float32:
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, self.casts)

    def refit(self, spec: Any) -> None:
        """Take another spec of the same modality, such as one with windows for the user's recordings."""
        if spec == self.spec:
            return
        options = {
            name: getattr(self.intake, name) for name in ("pooling", "types", "masked") if hasattr(self.intake, name)
        }
        self.spec = spec
        self.intake = registry.find(INTAKES, spec.modality).Intake(spec, **options).to(self.device)
        self.blanks.clear()
        self.pairs.clear()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.features(inputs)

    def hidden(self, inputs: Tensor) -> Tensor:
        """Output of the last block, before pooling: (B, D, H, W) of a convolutional net, (B, T, D) of a transformer."""
        kept: list[Any] = []
        with self.block(len(self.blocks) - 1).register_forward_hook(lambda _m, _a, output: kept.append(output)):
            self.features(inputs)
        return tree_leaves(kept[0])[0]

    def depths(self) -> dict[str, int]:
        """Depth of every parameter of ``module`` by name (see ``blocks.depths``), as measured by ``verify``."""
        found = chains.depths(self.module, self.blocks)
        if self.measured is None:
            return found
        after_front = dict.fromkeys(self.measured.between, self.front + 1)
        last = dict.fromkeys(self.measured.trailing, len(self.blocks))
        return found | dict.fromkeys(self.outside(), 0) | after_front | last

    def outside(self) -> tuple[str, ...]:
        """Names of the parameters that are in none of the blocks."""
        prefixes = tuple(f"{block}." if block else "" for block in self.blocks)
        return tuple(name for name, _ in self.module.named_parameters() if not name.startswith(prefixes))

    def weights_hash(self) -> str:
        """SHA-256 over every parameter and saved buffer of the network; ``identity.answers`` tells its forward."""
        return identity.digest(sorted(self.module.state_dict().items()))

    def insist_steady(self, inputs: Tensor) -> None:
        """Refuse a network that does not give the same features of these inputs (B, …) each time.

        Raises:
            BackboneError: it fails on them, or draws at random even in eval mode.
        """
        if not resume.same(trial.features(self, inputs), trial.features(self, inputs)):
            raise BackboneError(
                f"'{self.origin.uri}' answers differently each time, although it is in eval mode",
                where="backbone",
                remedy="switch off what it draws (masking, dropout called as a function) when not training",
            )

    def verify(self, inputs: Tensor) -> Verification:
        """Prove the blocks on one batch (B >= 2): each is called once, in order, and resuming from it is bit-equal.

        Tries the next plausible chain where one fails; falls back to the network as one block, and says why.

        Raises:
            BackboneError: see ``insist_steady``.
        """
        self.insist_steady(inputs)
        reasons: list[str] = []
        for chain in dict.fromkeys([self.blocks, *chains.candidates(self.module)[:4]]):
            if chain == chains.WHOLE:
                continue
            reason = self._refuted(chain, inputs)
            if not reason:
                note = f" (instead of another chain: {reasons[0]})" if reasons else ""
                note += f"; {self.front_end} comes first and stays frozen unless front_end=true" if self.front else ""
                self.verification = Verification(True, chain, f"{len(chain)} blocks resume bit for bit{note}")
                return self.verification
            reasons.append(reason)
        why = reasons[0] if reasons else "no chain of blocks was found"
        self._take(chains.WHOLE)
        reason = f"{why}; the whole network counts as one block: it is thawed and cached as a whole"
        self.verification = Verification(False, chains.WHOLE, reason)
        return self.verification

    def _take(self, chain: tuple[str, ...]) -> None:
        self.blocks, self.measured, self.stand_in_rows, self.uniform = chain, None, 1, None
        self.places = {}
        self.blanks.clear()
        self.pairs.clear()

    def _refuted(self, chain: tuple[str, ...], inputs: Tensor) -> str:
        """Why ``chain`` is not a chain of blocks on ``inputs``, or nothing; leaves the backbone set up for it."""
        with resume.evaluating(self):
            for rows, alike in (None, True), (1, False), (None, False):
                if alike and not self.intake.ragged:
                    continue
                self._take(chain)
                uniform = self.front if alike else None
                self.stand_in_rows, self.uniform = rows, uniform
                try:
                    reason = proof.refuted(self, inputs)
                except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, AssertionError) as error:
                    reason = f"resuming fails ({type(error).__name__}: {str(error)[:120]})"
                if not reason:
                    self.measured = proof.outside(self, inputs)
                    return ""
            return reason


def load(
    name: str | nn.Module,
    *,
    weights: str | Path | None = None,
    image_size: int | None = None,
    max_length: int | None = None,
    seconds: float | None = None,
    pooling: str | None = None,
    channels: int = 3,
    pretrained: bool = True,
    offline: bool = False,
    seed: int = 0,
) -> Backbone:
    """A backbone by name: ``timm/…``, ``torchvision/…``, ``builtin/…``, an existing path, a dotted name, a Hub id.

    Args:
        name: the name, or the user's own module.
        weights: a safetensors file or a state dict to put in, instead of the published weights.
        image_size: another input size than the backbone's own (pixels, square).
        max_length: tokens at which texts are cut. seconds: the window of sounds.
        pooling: how token or frame outputs become features (see ``families``); None is the usual one.
        channels: another number of input channels than 3.
        pretrained: False starts from random weights (``seed``).
        offline: never touch the network.

    Raises:
        BackboneError: unknown name, or weights that do not fit. Unreachable: weights that cannot be had.
    """
    from headstart.models import loading
    from headstart.models.wanted import Wanted

    file = None if weights is None else Path(weights).expanduser()
    return loading.load(
        name, Wanted(file, image_size, max_length, seconds, pooling, channels, pretrained, offline, seed)
    )


def default(offline: bool = False, modality: str = "image") -> tuple[str, str]:
    """The backbone taken when none is named, and why (see ``loading.default``)."""
    from headstart.models import loading

    return loading.default(offline, modality)
