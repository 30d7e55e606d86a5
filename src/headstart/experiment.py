"""The whole configuration of a run: read, overridden, checked, and able to say where every value came from."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from headstart.aliases import ALIASES, ELSEWHERE, SHORT, home, misplaced
from headstart.core import functions, registry, settings
from headstart.core.errors import ConfigError, Problem
from headstart.core.layers import Layers
from headstart.core.settings import Keys, Written, text_of
from headstart.data.settings import DataSettings, SplitSettings
from headstart.measure import metrics
from headstart.stages import budget, plans
from headstart.stages.base import STRICT, Gate, Stage, as_mapping
from headstart.stages.methods import probe, thaw

_SPLIT_NAMES = {"train", "val", "valid", "validation", "test", "target"}


@dataclass(frozen=True, config=STRICT)
class HeadSettings:
    """The new head. ``init: source`` starts from the rows of the source classifier whose class names match."""

    kind: str = "linear"
    hidden: int = Field(default=256, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    init: Literal["default", "xavier", "zero", "source"] = "default"
    pooling: Literal["mean", "cls", "native", "layers"] | None = None  # of tokens or frames; None: the usual one


class Explained(NamedTuple):
    """One setting, its value, and its origin: ``default``, ``pets.yaml:7``, ``command line``, ``plan gradual``."""

    key: str
    value: Any
    why: str


@dataclass(frozen=True, config=STRICT)
class Experiment:
    """Everything that decides a run.

    ``training`` holds settings of stages (lr, epochs, mixup…) for the whole plan: they replace the numbers of a named
    plan, and a stage that is written out keeps what it says itself.
    """

    data: DataSettings = field(default_factory=DataSettings)
    backbone: Any = None  # a name, or the user's own module; None: the best that is at hand, said aloud
    weights: str | None = None
    pretrained: bool = True
    image_size: int | None = Field(default=None, ge=8, le=4096)
    head: HeadSettings = field(default_factory=HeadSettings)
    plan: Any = plans.DEFAULT  # a plan's name, or a list of stages
    training: dict[str, Any] = field(default_factory=dict)
    seed: int = Field(default=42, ge=0, lt=2**32)
    output_dir: str = "runs"
    name: str | None = None
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # a name, or a function (labels, probabilities) -> float; auto: accuracy, or mAP where a row may have several labels
    metric: Any = "auto"
    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)  # from which a label is given, where a row may have several
    time_limit: float | None = Field(default=None, gt=0.0)  # seconds for the whole run
    threads: int | None = Field(default=None, ge=1, le=1024)
    baseline: bool = True
    normalisation_check: bool = True
    limits: bool = False  # tell of every stage how near it came to what the machine allows; half a second each
    offline: bool = False
    cache_budget: float | None = Field(default=None, ge=0.0)  # GB
    force: bool = False  # run a recipe that the check of the plan refuses
    places: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def stages(self, modality: str = "image") -> tuple[Stage, ...]:
        """The stages of the plan with the settings of ``training`` applied.

        Raises:
            ConfigError: a mistake in the plan; or the plan is ``auto``, which has stages once the data is known.
        """
        if self.plan == "auto":
            raise ConfigError("plan 'auto' has no stages before the data is known", where="plan")
        stages = plans.parse(self.plan, modality=modality)
        plans.override(stages, self.training)
        return tuple(plans.override([stage], self._whole_plan(index, stage))[0] for index, stage in enumerate(stages))

    def thaws(self, modality: str) -> bool:
        """Whether a stage may train blocks of the backbone."""
        return self.plan == "auto" or not all(isinstance(stage, probe.Settings) for stage in self.stages(modality))

    def _whole_plan(self, index: int, stage: Stage) -> dict[str, Any]:
        """The settings of ``training`` that this stage has and does not say itself."""
        names = {item.name for item in fields(stage) if item.init} - set(self._entry(index)[1])
        return {key: item for key, item in self.training.items() if key in names}

    def _entry(self, index: int) -> tuple[str, Mapping[str, Any]]:
        """What the plan calls a stage (the plan's own name where it has one), and the settings given with it."""
        entry = self.plan if isinstance(self.plan, str) else self.plan[index]
        name, said = next(iter(entry.items())) if isinstance(entry, Mapping) else (entry, None)
        return (name, said or {}) if isinstance(name, str) else (name.method, {})

    def distinct(self, stages: Sequence[Stage], opened: Callable[[thaw.Settings], Any]) -> tuple[Stage, ...]:
        """These stages, of a named plan without those that round to the next; what somebody has listed stays."""
        return plans.distinct(stages, opened) if isinstance(self.plan, str) else tuple(stages)

    def lengthened(self, stages: Sequence[Stage], rows: int) -> tuple[Stage, ...]:
        """These stages, those of a named plan with as many epochs and as much patience as they need to learn.

        What somebody has set stays.
        """
        told = [self._entry(index) for index in range(len(stages))]
        mine = [not (isinstance(self.plan, str) or name.partition(".")[0] in plans.PLANS) for name, _ in told]
        kept = [
            {"epochs", "patience"} if own else {*self.training, *said}
            for own, (_, said) in zip(mine, told, strict=True)
        ]
        return budget.repaired(stages, rows, kept)

    def functions(self) -> dict[str, str]:
        """What the functions of the user's own do, by their place: a digest of their code. A module given as the
        backbone is known by its weights and answers instead."""
        given = {name: getattr(self, name) for name in _FIELDS if name != "backbone"}
        return {place: functions.digest(found) for place, found in functions.inside(given)}

    def as_mapping(self) -> dict[str, Any]:
        """Plain values for ``experiment.yaml``; ``load`` reads them back as the same experiment."""
        mapping = {name: _plain(getattr(self, name)) for name in _FIELDS}
        return {**{key: item for key, item in mapping.items() if key != "training"}, **mapping["training"]}

    def to_yaml(self) -> str:
        """The text of ``experiment.yaml``."""
        return settings.dump(self.as_mapping())

    def explain(self, modality: str = "image") -> tuple[Explained, ...]:
        """Every setting with its value and where it came from; the stages of the plan follow the settings."""
        rows = [
            Explained(key, item, self._why(key))
            for name in _FIELDS
            if name not in ("plan", "training")
            for key, item in settings.flat(name, _plain(getattr(self, name)))
        ]
        rows.append(Explained("plan", self.plan if isinstance(self.plan, str) else "a list", self._why("plan")))
        rows += [Explained(key, _plain(item), self._why(key)) for key, item in self.training.items()]
        return (*rows, *(() if self.plan == "auto" else self._explain_stages(modality)))

    def _explain_stages(self, modality: str) -> Iterator[Explained]:
        for index, stage in enumerate(self.stages(modality)):
            defaults, whole_plan = as_mapping(type(stage)()), self._whole_plan(index, stage)
            (name, said), plan = self._entry(index), self._entry(index)[0].partition(".")[0]
            for key, item in as_mapping(stage).items():
                if key in whole_plan:
                    why = self._why(key)
                elif key not in said and plan in plans.PLANS and item != defaults[key]:
                    why = f"plan {plan}"
                else:
                    why = self._why(f"plan[{index}].{name}.{key}")
                yield Explained(f"plan[{index}].{stage.method}.{key}", item, why)

    def _why(self, key: str) -> str:
        inside = (place for path, place in self.places.items() if path.startswith((f"{key}.", f"{key}[")))
        return self.places.get(key) or next(inside, "default")


_FIELDS = tuple(item.name for item in fields(Experiment) if item.name not in ("places", "notes"))


def load(
    config: str | Path | None = None, overrides: Sequence[str] = (), *, origin: str = "argument", **flags: Any
) -> Experiment:
    """An experiment from a YAML file, ``key=value`` texts and keyword arguments; later ones win.

    Args:
        config: the YAML file, or None.
        overrides: such as ``"lr=3e-4"`` or ``"data.split.val=0.2"``; values are read as YAML.
        origin: what ``explain`` says of overrides and flags (the command line says "command line").
        flags: settings by name, also ``**{"data.split.val": 0.2}``; None counts as not given; ``data`` may be settings,
            or the data itself.

    Raises:
        ConfigError: every mistake at once, each with its place and the nearest known name.
    """
    layers = Layers(_known, ALIASES, _settle)
    if config is not None:
        layers.take([(settings.keys_of(key) or (key,), item) for key, item in settings.read(config).value.items()])
    given: list[tuple[Keys, Written]] = []
    for text in overrides:
        key, equals, right = text.partition("=")
        if equals and key.strip():
            item = settings.wrap(settings.value(right.strip()), origin, lists=True)
            given.append((settings.keys_of(key.strip()), item))
        else:
            second = ", and only one data source can be given" if flags.get("data") else ""
            layers.problems.append(Problem(f"'{text}' is not key=value{second}", origin, "for example: lr=3e-4"))
    for key, item in flags.items():
        if key == "plan" and isinstance(item, str) and item.lstrip().startswith("["):
            item = settings.value(item)
        if item is not None:
            given.append((settings.keys_of(key) or (key,), settings.wrap(item, origin, lists=key == "plan")))
    layers.take(given)
    return _checked(layers)


def _checked(layers: Layers) -> Experiment:
    _yield_to_later(layers.root)
    places = {text_of(keys): item.place for keys, item in layers.root.walk() if keys}
    values, training = dict[str, Any](), dict[str, Any]()
    problems: list[Problem] = []
    for key, item in layers.root.value.items():
        if key in _FIELDS:
            values[key] = item.plain()
        elif key in _known(("plan", 0, "")):
            training[key] = item.plain()
        else:
            nearest = "" if key in ELSEWHERE else registry.suggest(key, [*_known(()), *ALIASES, *SHORT])
            problems.append(Problem(f"unknown setting{nearest}", key, ELSEWHERE.get(key, "")))
    if values.get("metric", "auto") != "auto":
        problems += metrics.problems(values["metric"])
    problems += plans.problems(values.get("plan", plans.DEFAULT), training)
    values |= {"training": training, "places": places, "notes": tuple(layers.notes.values())}
    try:
        experiment = TypeAdapter(Experiment).validate_python(values)
    except ValidationError as error:
        problems += settings.problems_from(error.errors(), known=_known, home=lambda keys: misplaced(keys, _known(())))
    if layers.problems or problems:
        told = dict.fromkeys([*layers.problems, *(_with_place(problem, places) for problem in problems)])
        raise ConfigError("the settings cannot be used", problems=told)
    return experiment


def _with_place(problem: Problem, places: Mapping[str, str]) -> Problem:
    """The problem with ``(pets.yaml:7)`` behind it: the place of the setting, or of what it stands in."""
    keys = settings.keys_of(problem.where)
    while keys and text_of(keys) not in places:
        keys = keys[:-1]
    return replace(problem, what=f"{problem.what} ({places[text_of(keys)]})") if text_of(keys) in places else problem


def _yield_to_later(root: Written) -> None:
    """A setting for the whole plan replaces what earlier sources said of a stage, not what its own source says."""

    def rank(place: str) -> int:
        return 0 if place.startswith("plan ") else 1 if re.search(r":\d+$", place) else 2

    plan = root.value["plan"].value if "plan" in root.value else []
    for entry in plan if isinstance(plan, list) else []:
        stages = entry.value.values() if isinstance(entry, Written) and isinstance(entry.value, dict) else []
        for said in (stage.value for stage in stages if isinstance(stage.value, dict)):
            for key in [key for key in said if key in root.value and key not in _FIELDS]:
                if rank(said[key].place) < rank(root.value[key].place):
                    del said[key]


def _settle(root: Written, path: Keys, item: Written) -> tuple[Keys, Written]:
    """Where short forms belong: ``data: photos/``, ``val: 0.2``, ``training: {lr: …}``, ``plan.thaw-half.lr``."""
    path = home(path)
    if path[:1] == ("training",):
        return path[1:], item
    is_splits = isinstance(item.value, dict) and item.value and set(item.value) <= _SPLIT_NAMES
    if path == ("data",) and (is_splits or not isinstance(item.value, dict)):
        return ("data", "source"), item
    if path[:1] != ("plan",) or len(path) < 2:
        return path, item
    plan = root.value.get("plan") or Written(plans.DEFAULT, item.place)
    if isinstance(plan.value, str) and plan.value in plans.PLANS:
        stages = [f"{plan.value}.{stage.title}" for stage in plans.PLANS[plan.value]]
        plan = settings.wrap(stages, f"plan {plan.value}", lists=True)
    if not isinstance(plan.value, list):
        return path, item
    root.value["plan"] = plan
    return ("plan", *plans.address(plan.value, path[1:])), item


@functools.cache
def _known(scope: Keys) -> frozenset[str]:
    """The names of the settings inside ``scope``; empty where anything goes."""
    kinds: dict[Keys, tuple[type, ...]] = {
        (): (Experiment, *_stage_kinds()),
        ("data",): (DataSettings,),
        ("data", "split"): (SplitSettings,),
        ("head",): (HeadSettings,),
        ("training",): _stage_kinds(),
        ("gate",): (Gate,),
    }
    found = kinds.get(scope, ())
    if scope[:1] == ("plan",):
        found = _stage_kinds() if len(scope) == 3 else (Gate,) if scope[3:] == ("gate",) else ()
    return frozenset(item.name for kind in found for item in fields(kind) if item.init) - {"places", "notes"}


@functools.cache
def _stage_kinds() -> tuple[type, ...]:
    return tuple(registry.find(plans.METHODS, name).Settings for name in registry.names(plans.METHODS))


def _plain(item: Any) -> Any:
    if isinstance(item, Stage):
        return {item.method: as_mapping(item)}
    if is_dataclass(item) and not isinstance(item, type):
        return {part.name: _plain(getattr(item, part.name)) for part in fields(item)}
    if isinstance(item, Mapping):
        return {str(key): _plain(inner) for key, inner in item.items()}
    if isinstance(item, (list, tuple)):
        return [_plain(inner) for inner in item]
    if item is None or isinstance(item, (str, int, float, bool)):
        return item
    if isinstance(item, Path):
        return str(item)
    kind = item if hasattr(item, "__qualname__") else type(item)
    return f"{kind.__module__}.{kind.__qualname__}"
