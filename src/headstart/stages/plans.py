"""Plans by name: each is only a list of stages. The exact numbers stand here, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from headstart.core import registry
from headstart.core.errors import ConfigError, Problem
from headstart.core.settings import Keys, Written, keys_of, problems_from
from headstart.data import presets
from headstart.stages.base import Gate, Stage, Training
from headstart.stages.methods import probe, scratch, thaw

METHODS = "headstart.stages.methods"
NEW_HEAD = 10.0  # how many times faster than the last block a head moves that nothing has trained yet

# After a probe: small batches for more updates.
_HANDED_OVER: dict[str, Any] = {
    "batch_size": 16,
    "layer_decay": 0.9,
    "label_smoothing": 0.1,
    "augment": "light",
    "patience": 3,
}
# Transformers that read: few epochs at low rates, as the field fine-tunes BERT (Devlin et al. 2019).
_READ: dict[str, Any] = {
    "batch_size": 16,
    "layer_decay": 0.9,
    "schedule": "linear",
    "patience": 2,
}

PLANS: dict[str, tuple[Stage, ...]] = {
    "probe": (probe.Settings(),),
    "gradual": (
        probe.Settings(),
        thaw.Settings(name="thaw-quarter", blocks=0.25, epochs=8, lr=3e-4, views=4, **_HANDED_OVER),
        thaw.Settings(name="thaw-half", blocks=0.5, epochs=8, lr=2e-4, views=4, **_HANDED_OVER),
        thaw.Settings(name="thaw-all", blocks="all", epochs=8, lr=2e-4, **_HANDED_OVER),
    ),
    "full": (
        thaw.Settings(
            name="full", epochs=12, lr=3e-4, layer_decay=1.0, label_smoothing=0.1, augment="light", patience=5
        ),
    ),
    "scratch": (scratch.Settings(epochs=20, patience=10),),
}
# Where a plan is another for a modality than for pictures.
OTHERWISE: dict[str, dict[str, tuple[Stage, ...]]] = {
    "text": {
        "gradual": (
            probe.Settings(),
            thaw.Settings(name="thaw-quarter", blocks=0.25, epochs=2, lr=1e-4, **_READ),
            thaw.Settings(name="thaw-half", blocks=0.5, epochs=2, lr=5e-5, **_READ),
            thaw.Settings(name="thaw-all", blocks="all", epochs=3, lr=5e-5, **_READ),
        ),
        "full": (thaw.Settings(name="full", epochs=4, lr=5e-5, **(_READ | {"layer_decay": 1.0})),),
        "scratch": (scratch.Settings(epochs=8, lr=3e-4, batch_size=16, patience=4),),
    },
    # As for pictures, at rates that transformers bear; views are cached to the end, above a front end that is frozen.
    "audio": {
        "gradual": (
            probe.Settings(),
            thaw.Settings(name="thaw-quarter", blocks=0.25, epochs=8, lr=2e-4, views=4, **_HANDED_OVER),
            thaw.Settings(name="thaw-half", blocks=0.5, epochs=8, lr=1e-4, views=4, **_HANDED_OVER),
            thaw.Settings(name="thaw-all", blocks="all", epochs=8, lr=1e-4, views=4, **_HANDED_OVER),
        ),
    },
}
DEFAULT = "gradual"


def names() -> tuple[str, ...]:
    """What ``plan`` accepts by name; ``auto`` chooses among them."""
    return (*PLANS, "auto")


def parse(plan: str | Sequence[Any], *, modality: str = "image", where: str = "plan") -> tuple[Stage, ...]:
    """Stages from a plan's name or from a list such as ``["probe", {"thaw": {"blocks": 4}}]``.

    In a list, ``gradual.thaw-half`` is that stage of that plan, and settings beside it replace its own.

    Args:
        modality: named plans have other numbers for some (see ``OTHERWISE``).

    Raises:
        ConfigError: every mistake of the list at once, each with its place and the nearest known name.
    """
    if isinstance(plan, str):
        if plan in PLANS:
            return OTHERWISE.get(modality, {}).get(plan, PLANS[plan])
        if plan not in registry.names(METHODS) and "." not in plan:
            known = ", ".join(names())
            raise ConfigError(
                f"unknown plan '{plan}'{registry.suggest(plan, [*names(), *registry.names(METHODS)])}",
                where=where,
                remedy=f"known: {known}; or a list of stages",
            )
        plan = [plan]
    if not isinstance(plan, list | tuple):
        what = f"a plan is a name or a list of stages, not {str(plan)[:50]}"
        raise ConfigError(what, where=where, remedy="for example: plan: [probe, {thaw: {blocks: 2}}]")
    problems: list[Problem] = []
    stages: list[Stage] = []
    for index, entry in enumerate(plan):
        stage = _entry(entry, f"{where}[{index}]", modality, problems)
        if stage is not None:
            stages.append(stage)
    if not problems and not stages:
        problems.append(Problem("the plan has no stage", where, "for example: plan: [probe, thaw]"))
    if problems:
        raise ConfigError("the plan cannot be used", problems=problems)
    return tuple(stages)


def named(name: str, modality: str = "image") -> Stage | None:
    """The stage that ``gradual.thaw-half`` means; None where the first part is no plan's name.

    Raises:
        ConfigError: the plan has no such stage.
    """
    plan, dot, title = name.partition(".")
    if plan not in PLANS or not dot:
        return None
    titles = {stage.title: stage for stage in parse(plan, modality=modality)}
    if title not in titles:
        what = f"plan '{plan}' has no stage '{title}'{registry.suggest(title, titles)}"
        raise ConfigError(what, where="plan", remedy=f"known: {', '.join(titles)}")
    return titles[title]


def address(plan: list[Written], path: Keys) -> Keys:
    """Where a setting of a stage stands in a plan that is a list: ``("thaw-half", "lr")`` is ``(1, "thaw", "lr")``."""
    index, rest = path[0], path[1:]
    for place, entry in enumerate(plan):
        if isinstance(entry.value, str):
            entry.value = {entry.value: Written({}, entry.place)}
        if not isinstance(entry.value, dict) or len(entry.value) != 1:
            continue
        ((method, inner),) = entry.value.items()
        if inner.value is None:
            inner.value = {}
        title = inner.value.get("name") if isinstance(inner.value, dict) else None
        borrowed = named(method) if method.partition(".")[0] in PLANS else None
        if index in (method, title.value if title else borrowed.title if borrowed else method):
            index = place
        if index == place and rest[:1] in ((method,), (borrowed.method if borrowed else method,)):
            rest = rest[1:]
        if index == place:
            rest = (method, *rest)
    return (index, *rest)


def override(stages: Sequence[Stage], settings: Mapping[str, Any], *, where: str = "") -> tuple[Stage, ...]:
    """Apply settings such as ``lr`` or ``mixup`` to every stage of a plan that has them.

    Raises:
        ConfigError: a setting that no stage has, or a value out of range.
    """
    known = {item.name for stage in stages for item in fields(stage) if item.init}
    problems = [
        Problem(f"no stage of the plan has the setting '{key}'{registry.suggest(key, known)}", where or key)
        for key in settings
        if key not in known
    ]
    changed: list[Stage] = []
    for stage in stages:
        own = {item.name for item in fields(stage) if item.init}
        values = {**settings_of(stage), **{key: value for key, value in settings.items() if key in own}}
        checked = _validate(type(stage), values, where, problems)
        changed.append(checked or stage)
    if problems:
        raise ConfigError("the settings cannot be used", problems=problems)
    return tuple(changed)


def problems(plan: Any, settings: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with a plan, and with settings for its stages (of ``auto``: any plan's; of a wrong one: any)."""
    found: list[Problem] = []
    stages: Sequence[Stage] = [stage for stages in PLANS.values() for stage in stages]
    try:
        stages = stages if plan == "auto" else parse(plan)
    except ConfigError as error:
        found += error.problems
        stages = [registry.find(METHODS, name).Settings() for name in registry.names(METHODS)]
    try:
        override(stages, settings)
    except ConfigError as error:
        found += error.problems
    return found + presets.problems(settings.get("augment"), "augment")


def settled(stages: Sequence[Stage], modality: str = "image") -> tuple[Stage, ...]:
    """The same stages with what depends on their place in the plan and on the rows filled in.

    That is how fast the head moves, and how rows are augmented.
    """
    fresh = [all(earlier.prepares for earlier in stages[:index]) for index in range(len(stages))]
    return tuple(_settled(stage, not new, modality) for stage, new in zip(stages, fresh, strict=True))


def _settled(stage: Stage, later: bool, modality: str) -> Stage:
    if not isinstance(stage, Training) or stage.prepares or stage.solves:
        return stage
    head = stage.head_multiple if stage.head_multiple is not None else 1.0 if later else NEW_HEAD
    usual = "none" if modality == "text" else "standard"
    return replace(stage, head_multiple=head, augment=usual if stage.augment == "auto" else stage.augment)


def distinct(stages: Sequence[Stage], opened: Callable[[thaw.Settings], Any]) -> tuple[Stage, ...]:
    """The stages of a named plan without those whose share opens as many whole blocks as the next stage.

    Of two blocks a quarter and a half are one, and the half stays; of a single block only ``all`` does.

    Args:
        opened: what a stage opens of the network.
    """

    def again(stage: Stage, after: Stage | None) -> bool:
        if not isinstance(stage, thaw.Settings) or not isinstance(after, thaw.Settings):
            return False
        meant = isinstance(stage.blocks, int) or isinstance(after.blocks, int) or stage.blocks == after.blocks
        return not meant and opened(stage) == opened(after)

    following = (*stages[1:], None)
    return tuple(stage for stage, after in zip(stages, following, strict=True) if not again(stage, after))


def settings_of(stage: Stage) -> dict[str, Any]:
    """The settings of a stage as keyword arguments of its class."""
    return {item.name: getattr(stage, item.name) for item in fields(stage) if item.init}


def _entry(entry: Any, where: str, modality: str, problems: list[Problem]) -> Stage | None:
    if isinstance(entry, Stage):
        return entry
    if isinstance(entry, str):
        entry = {entry: {}}
    if not isinstance(entry, Mapping) or len(entry) != 1:
        problems.append(
            Problem("a stage is a name or one name with its settings", where, "for example: thaw: {blocks: 4}")
        )
        return None
    ((name, settings),) = entry.items()
    try:
        base = named(str(name), modality)
        kind = registry.find(METHODS, str(name), where=where).Settings if base is None else type(base)
    except ConfigError as error:
        problems.extend(replace(problem, where=where) for problem in error.problems)
        return None
    given = settings or {}
    if not isinstance(given, Mapping):
        what = f"the settings of a stage have names (got {given!r})"
        problems.append(Problem(what, f"{where}.{name}", "for example: thaw: {blocks: 4}"))
        return None
    problems += presets.problems(given.get("augment"), f"{where}.{name}.augment")
    own = {} if base is None else settings_of(base)
    return _validate(kind, {**own, **given}, f"{where}.{name}", problems)


def _validate(kind: type[Stage], values: dict[str, Any], where: str, problems: list[Problem]) -> Stage | None:
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        own = [item.name for item in fields(kind) if item.init]
        known: dict[Keys, list[str]] = {(): own, ("gate",): [item.name for item in fields(Gate)]}
        scope = keys_of(where)
        problems += problems_from(error.errors(), where, lambda keys: known.get(keys[len(scope) :], ()))
        return None
