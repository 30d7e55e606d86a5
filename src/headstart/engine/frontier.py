"""What the frozen blocks give, from where it is cheapest: earlier runs, the pass of an earlier stage, or a fresh one.

Shapes: N rows, D features.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from headstart.core import keyed, registry
from headstart.core.errors import TrainingError
from headstart.core.events import Decision, Notice
from headstart.engine import cache, features, streams
from headstart.engine.cache import CacheDecision, FeatureStore, FrontierCache
from headstart.engine.features import Emit
from headstart.engine.parts import Parts
from headstart.engine.precision import DTYPES
from headstart.engine.recorded import Frontier, Held, Passed, Wanted
from headstart.engine.runtime import Runtime
from headstart.engine.streams import Examples, augmentation, why_fresh
from headstart.models import identity, inference, resume
from headstart.models.backbone import Backbone
from headstart.models.model import Model
from headstart.stages.learner import POOLED

PASS_VERSION = 4  # of how a pass computes features: kept ones of another are not served
CHECKED = 4  # rows that a faster copy of the backbone is checked on
FIRST = 8  # rows that tell whether the user's own augmentation changes the number of tokens


@dataclass
class Frontiers:
    """Builds frontiers and pooled features of one model."""

    model: Model
    runtime: Runtime
    emit: Emit
    seed: int
    budget: int  # bytes
    kept: FeatureStore | None = None
    passed: list[Passed] = field(default_factory=list)  # what was computed, and not found
    _copies: inference.Copies | None = None
    _held: list[Held] = field(default_factory=list)
    _told: bool = False

    @cached_property
    def origin(self) -> str:
        """What makes the backbone's features, as it is (see ``renew``); features of earlier runs are keyed by it.

        Its weights, how it is called and by which libraries, and what it answers to one fixed batch: that tells a
        changed forward too, such as another pooling of an own module under the same weights.
        """
        backbone = self.model.backbone
        library = str(backbone.architecture.get("library"))
        told = {
            "weights": backbone.weights_hash(),
            "architecture": backbone.architecture,
            "call": backbone.call,
            "versions": [torch.__version__, _version(library)],
            "answers": identity.digest([("noise", identity.answers(backbone))]),
        }
        return json.dumps(told, sort_keys=True, default=str)

    def renew(self) -> None:
        """The backbone has other weights now: whatever was derived from those before is forgotten."""
        self._copies = None
        self._told = False
        self.__dict__.pop("origin", None)

    def pooled(self, examples: Examples, view: int = 0, augment: Any = None) -> torch.Tensor:
        """Pooled features (N, D) of one view; view 0 is the plain picture."""
        chosen = None if view == 0 else augmentation(augment, examples.store.modality)
        kept = None if callable(chosen) else self.kept  # nobody can tell one function of the user's from another
        key = self.key(examples, chosen, view)
        found = kept.read(key) if kept else None
        if found is not None and len(found) != len(examples):
            found = None
        somewhere_missing = self.runtime.agree(found is None)  # then all compute: ranks share that work and wait
        if found is not None and not somewhere_missing:
            self.emit(Notice("info", "features-kept", f"features of {examples.split} are kept from an earlier run"))
            return found
        into = FrontierCache(POOLED, len(examples))
        fast, how = self.copies(examples).of(DTYPES[self.runtime.precision])
        if not self._told:  # a check's copy is no pass, and that the rows to judge by are always exact is no choice
            self._told = True
            self.emit(Decision("feature pass", str(how.dtype).removeprefix("torch."), how.reason))
        parts = None
        if kept and self.runtime.world == 1:
            parts = Parts(kept, key, features.order(examples, self.runtime), into)
            if parts.done:
                told = f"{parts.done} of {len(examples)} rows of {examples.split} are kept from an interrupted pass"
                self.emit(Notice("info", "features-kept", told))
        seen = (chosen, (self.seed, view))
        self._fill([into], 0, examples, lambda inputs: [fast(inputs)], *seen, "features", how.dtype, parts)
        found = into.features(0)
        broken = [examples.rows.names[row] for row in (~found.isfinite().all(dim=1)).nonzero().flatten().tolist()]
        if broken:
            what = f"the features of {len(broken)} rows are not finite: {', '.join(broken[:5])}"
            other = "precision=fp32, or " if how.dtype != torch.float32 else ""
            raise TrainingError(what, where=examples.split, remedy=f"{other}another backbone; see these rows")
        if kept and self.runtime.is_main:
            kept.write(key, found)
            if parts is not None:
                parts.drop()
        return found

    def faster(self, examples: Examples) -> Backbone:
        """A copy of the backbone as it came, in the precision of the run."""
        return self.copies(examples).of(DTYPES[self.runtime.precision])[0]

    def copies(self, examples: Examples) -> inference.Copies:
        """Such copies, checked on a batch of the rows that they are first asked for."""
        if self._copies is None:
            few = np.linspace(0, len(examples) - 1, min(CHECKED, len(examples))).astype(np.int64)
            batch = next(iter(examples.batches(few, batch_size=CHECKED)))
            sample = streams.on_device(batch.inputs, self.runtime.device)
            self._copies = inference.Copies(self.model.backbone, sample)
        return self._copies

    def of_stage(self, wanted: Wanted, train: Examples, val: Examples, ahead: Sequence[Wanted] = ()) -> Frontier:
        """The frontier below the thawed blocks, for training and validation rows, where it can be cached.

        The validation rows pass in fp32: their frontier serves the answers that count as well as those of an epoch.

        Args:
            ahead: what later stages will want. As far as the same pass goes by it, and the budget holds it too, it is
                recorded on the way, and kept while it is wanted with the same weights below.
        """
        self._held = [held for held in self._held if any(held.wanted.is_of(each) for each in (wanted, *ahead))]
        found = next((held for held in self._held if held.wanted.is_of(wanted)), None)
        decision = self._decide(wanted, train, val, self.budget)
        told = replace(decision, reason=f"{decision.reason}, recorded with an earlier stage's") if found else decision
        self.emit(Decision("frontier cache", "used" if told.used else "not used", told.reason))
        if not decision.used:
            return Frontier(decision)
        if found is None:
            while self._held and decision.nbytes + self._held_bytes > self.budget:
                self._held.pop()
            found, *others = self._record(self._together(wanted, decision.nbytes, train, val, ahead), train, val)
            self._held += [found, *others]
        self._held = [held for held in self._held if any(held.wanted.is_of(each) for each in ahead)]
        return Frontier(told, found.train, found.val)

    def let_go(self) -> None:
        """No stage follows: what was recorded for one is dropped."""
        self._held.clear()

    @property
    def _held_bytes(self) -> int:
        return sum(held.train.nbytes + held.val.nbytes for held in self._held)

    def _decide(self, wanted: Wanted, train: Examples, val: Examples, budget: int) -> CacheDecision:
        """Whether to keep what this stage wants."""
        frontier, rows = wanted.frontier, len(train) * wanted.views + len(val)
        nbytes = self._row_bytes(train, frontier) * len(train) * wanted.views if frontier else 0
        with self.runtime.exactly():
            nbytes += self._row_bytes(val, frontier) * len(val) if frontier else 0
        return cache.decide(
            frontier,
            len(self.model.backbone.blocks),
            round(nbytes / rows),
            rows,
            budget,
            fresh=why_fresh(wanted.stage, train.store.modality) or self._why_odd(wanted, train, val),
        )

    def _together(
        self, first: Wanted, nbytes: int, train: Examples, val: Examples, ahead: Sequence[Wanted]
    ) -> list[Wanted]:
        """Those to record in the pass for the first, which takes ``nbytes``."""
        chosen, left = [first], self.budget - nbytes - self._held_bytes
        for each in ahead:
            known = any(each.is_of(other) for other in (*chosen, *(held.wanted for held in self._held)))
            if known or each.seen != first.seen or not 0 < each.frontier <= first.frontier:
                continue
            decision = self._decide(each, train, val, left)
            if decision.used:
                chosen.append(each)
                left -= decision.nbytes
        return chosen

    def _record(self, wanted: Sequence[Wanted], train: Examples, val: Examples) -> list[Held]:
        """What the frozen blocks give, for all of these, which see the same views."""
        held = [
            Held(
                each,
                FrontierCache(each.frontier, len(train), each.views, self._lengths(train), train.most),
                FrontierCache(each.frontier, len(val), 1, self._lengths(val), val.most),
            )
            for each in wanted
        ]
        self.model.eval()
        with resume.recording(self.model.backbone, [each.frontier for each in wanted]) as outputs:
            for view in range(wanted[0].views):
                augment = None if view == 0 else augmentation(wanted[0].stage.augment, train.store.modality)
                into = [each.train for each in held]
                self._fill(into, view, train, outputs, augment, (self.seed, view), "frozen blocks")
            with self.runtime.exactly():
                self._fill([each.val for each in held], 0, val, outputs, None, (), "frozen blocks")
        return held

    def _fill(
        self,
        into: Sequence[FrontierCache],
        view: int,
        examples: Examples,
        compute: Callable[[torch.Tensor], Sequence[Any]],
        augment: Any,
        key: tuple[int, ...],
        task: str,
        dtype: torch.dtype | None = None,
        parts: Parts | None = None,
    ) -> None:
        """Fill these; ``dtype`` is what is computed in, where it is not the precision of the run."""
        rows = len(examples) - (parts.done if parts else 0)
        options: dict[str, Any] = {"augment": augment, "key": key, "task": task, "parts": parts}
        features.fill(into, view, examples, compute, self.runtime, emit=self.emit, **options)
        computed = self.runtime.precision if dtype != torch.float32 else "fp32"
        self.passed.append(Passed(rows, max(each.frontier for each in into), computed))

    def _lengths(self, examples: Examples) -> np.ndarray | None:
        """(N,) tokens of every row, where what lies between the blocks is as long as its row."""
        window = getattr(examples.spec, "window", 0)  # of sounds: each row fills one, unless it is longer
        return examples.store.lengths if self.model.backbone.intake.ragged and not window else None

    def _why_odd(self, wanted: Wanted, *examples: Examples) -> str:
        """Why what lies between the blocks has no shape to be kept in; empty where it has."""
        frontier, window = wanted.frontier, getattr(examples[0].spec, "window", 0)
        if window and any(each.store.lengths.max() > window for each in examples):
            return "some sounds are longer than a window, so what lies between the blocks has no fixed size"
        if min(self.model.backbone.places.get(frontier, ()), default=0) < 0:
            return "what lies between the blocks does not grow with the rows, so every epoch computes it"
        if self._lengths(examples[0]) is None or not frontier:
            return ""
        if wanted.views > 1 and self._changes_lengths(wanted.stage.augment, examples[0]):
            return "the augmentation changes how many tokens a text has, so every epoch computes it"
        noise = examples[0].spec.noise(2)
        value = self._recorded(noise, frontier)["value"]
        found = [leaf for leaf in tree_leaves(value) if torch.is_tensor(leaf) and leaf.dim()]
        if all(leaf.dim() > 2 and leaf.shape[:2] == (2, noise.shape[-1]) for leaf in found):
            return ""
        return "what lies between the blocks is not one value a token, so every epoch computes it"

    def _changes_lengths(self, augment: Any, examples: Examples) -> bool:
        """Whether a function of the user's own does, on the first rows."""
        if not callable(augment):
            return False
        few = np.arange(min(FIRST, len(examples)))
        batch = next(iter(examples.batches(few, batch_size=len(few), augment=augment, key=(self.seed, 1))))
        found = self.model.backbone.intake.lengths(torch.from_numpy(batch.inputs))
        return not np.array_equal(found.numpy(), examples.store.lengths[few])

    def _row_bytes(self, examples: Examples, frontier: int) -> int:
        blank = examples.spec.blank(1)
        size = cache.tree_bytes(self._recorded(blank, frontier), 1)
        lengths = self._lengths(examples)
        return size if lengths is None else round(size / blank.shape[-1] * float(lengths.mean()))

    def _recorded(self, inputs: np.ndarray, frontier: int) -> Any:
        self.model.eval()
        with self.runtime.autocast():
            return resume.record(self.model.backbone, frontier, streams.on_device(inputs, self.runtime.device))

    def key(self, examples: Examples, augment: Any = None, view: int = 0) -> str:
        """All that the pooled features of one view depend on, in the precision of the run."""
        seen = "plain" if augment is None else repr((augment, view, self.seed))
        spec = json.dumps(examples.spec.to_json(), sort_keys=True)
        modality = registry.find("headstart.data.modalities", examples.store.modality)
        rows = (modality.name, modality.version, spec, examples.fingerprint)
        return f"{keyed.digest(PASS_VERSION, self.origin, *rows, self.runtime.precision, seen):032x}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # built in, or the user's own
        return ""
