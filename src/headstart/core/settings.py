"""Settings as someone wrote them: every value knows the file and line, or the command line, that it came from.

YAML is read by the rules of YAML 1.2, so that ``3e-4`` is a number, and ``no``, ``007`` and ``1:30`` are the texts that
people mean; keys are always text. Nothing here can build objects: only mappings, lists and plain values.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from headstart.core.errors import ConfigError, Problem
from headstart.core.registry import suggest

Keys = tuple[str | int, ...]  # ("plan", 1, "thaw", "lr"), written plan[1].thaw.lr
MAX_DEPTH, MAX_VALUES = 20, 20_000  # anchors can nest and multiply without end
_BRANCH = re.compile(r"^(?:function-|constrained-|(?:literal|dict|list|tuple)\[|(?:float|int|str|bool|none)$)")
_KEY = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


@dataclass
class Written:
    """A value with its place; mappings hold ``Written`` values, lists all or none, anything else is left as it is."""

    value: Any
    place: str

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: item.plain() for key, item in self.value.items()}
        if isinstance(self.value, list) and self.value and isinstance(self.value[0], Written):
            return [item.plain() for item in self.value]
        return self.value

    def walk(self, keys: Keys = ()) -> Iterator[tuple[Keys, Written]]:
        """This value and everything inside it, with the keys that lead there."""
        yield keys, self
        inner: Iterable[tuple[str | int, Any]] = ()
        if isinstance(self.value, dict):
            inner = self.value.items()
        elif isinstance(self.value, list):
            inner = enumerate(self.value)
        for key, item in inner:
            if isinstance(item, Written):
                yield from item.walk((*keys, key))


class _Yaml12(yaml.SafeLoader):
    """Builds plain values only, by the rules below."""


class _Dumper(yaml.SafeDumper):
    """Quotes every text that YAML 1.1 or our reader would take for something else."""


_Yaml12.yaml_implicit_resolvers = {}
_RESOLVERS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))"
        r"|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
}
for _kind, (_pattern, _first) in _RESOLVERS.items():
    for _user in (_Yaml12, _Dumper):
        _user.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), list(_first))


def read(path: str | Path) -> Written:
    """A YAML file whose top is a mapping.

    Raises:
        ConfigError: the file is missing, not text, not YAML, or repeats a key; with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the file ({error})", where=str(path)) from error
    return parse(text, str(path))


def parse(text: str, label: str) -> Written:
    """YAML text whose top is a mapping; places are ``label:line``."""
    problems: list[Problem] = []
    written = _compose(text, label, problems)
    if not isinstance(written.value, dict):
        problems.append(Problem("the file holds no `key: value` settings", label, "for example: backbone: timm/…"))
    if problems:
        raise ConfigError("the settings cannot be read", problems=problems)
    return written


def value(text: str) -> Any:
    """What the right side of ``key=value`` means: YAML where it is YAML (3e-4, true, [1, 2]), else the text itself."""
    problems: list[Problem] = []
    try:
        written = _compose(text, "", problems)
    except ConfigError:
        return text
    if problems or (isinstance(written.value, dict) and not text.lstrip().startswith("{")):
        return text
    if written.value == "" and text.strip("'\""):  # a lone | begins a block of YAML, and is a sign on the line
        return text
    return written.plain()


def wrap(item: Any, place: str, *, lists: bool = False) -> Written:
    """Put one place on a value and on everything inside its mappings (and inside its lists, where asked)."""
    if isinstance(item, Mapping):
        return Written({str(key): wrap(inner, place, lists=lists) for key, inner in item.items()}, place)
    if lists and isinstance(item, (list, tuple)):
        return Written([wrap(inner, place, lists=True) for inner in item], place)
    return Written(item, place)


def dump(mapping: Mapping[str, Any]) -> str:
    """YAML text that ``parse`` reads back as the same values."""
    return yaml.dump(dict(mapping), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def keys_of(text: str) -> Keys:
    """``plan[1].thaw.lr`` (or ``plan.1.thaw.lr``) as keys."""
    found = [name if name else int(index) for name, index in _KEY.findall(text)]
    return tuple(int(key) if isinstance(key, str) and key.isdecimal() else key for key in found)


def text_of(keys: Keys) -> str:
    """The keys as people write them."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys).lstrip(".")


def problems_from(
    errors: Iterable[Mapping[str, Any]],
    where: str = "",
    known: Callable[[Keys], Iterable[str]] = lambda scope: (),
    home: Callable[[Keys], str] = lambda keys: "",
) -> list[Problem]:
    """Pydantic's errors in our words: one problem a setting, unknown names with the nearest of ``known(scope)`` and
    with what ``home`` says of their own place.

    A union of types fails once for each of its types; those are told together.
    """
    told: dict[str, list[str]] = {}
    remedies: dict[str, str] = {}
    for error in errors:
        unknown = error["type"] == "unexpected_keyword_argument"
        keys = tuple(part for part in error["loc"] if unknown or not _BRANCH.match(str(part)))
        keys = (*keys_of(where), *keys)
        path = text_of(keys)
        if unknown:
            message = f"unknown setting{suggest(str(keys[-1]), known(keys[:-1]))}"
            remedies[path] = home(keys)
        else:
            message = str(error["msg"]).removeprefix("Value error, ")
            shown = repr(error.get("input"))
            message += f" (got {shown if len(shown) < 60 else shown[:57] + '…'})"
        told.setdefault(path, []).append(message)
    return [Problem(_joined(messages), path, remedies.get(path, "")) for path, messages in told.items()]


def _joined(messages: list[str]) -> str:
    """``should be a valid number or 'all' (got 'four')`` from what each type of a union says."""
    got = f" (got {messages[0].partition(' (got ')[2]}" if " (got " in messages[0] else ""
    parts = [message.removesuffix(got).partition(", unable to")[0] for message in messages]
    if not all(part.startswith("Input should be ") for part in parts):
        return ", or: ".join(dict.fromkeys(parts)) + got
    return "should be " + " or ".join(dict.fromkeys(part.removeprefix("Input should be ") for part in parts)) + got


def _compose(text: str, label: str, problems: list[Problem]) -> Written:
    try:
        loader = _Yaml12(text)
        node = loader.get_single_node()
        counter = [0]
        return Written({}, label) if node is None else _convert(loader, node, label, problems, 0, counter)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"{label}:{mark.line + 1}" if mark else label
        what = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise ConfigError(f"not valid YAML: {what}", where=where) from error


def _convert(loader: Any, node: Any, label: str, problems: list[Problem], depth: int, counter: list[int]) -> Written:
    place = f"{label}:{node.start_mark.line + 1}"
    counter[0] += 1
    if depth > MAX_DEPTH or counter[0] > MAX_VALUES:
        raise ConfigError("the settings are nested too deeply, or too many", where=place)
    if isinstance(node, yaml.ScalarNode):
        return Written(loader.construct_object(node), place)
    if isinstance(node, yaml.SequenceNode):
        items = [_convert(loader, item, label, problems, depth + 1, counter) for item in node.value]
        return Written(items, place)
    mapping: dict[str, Written] = {}
    for key_node, value_node in node.value:
        key_place = f"{label}:{key_node.start_mark.line + 1}"
        if not isinstance(key_node, yaml.ScalarNode):
            problems.append(Problem("a key has to be a word", key_place))
            continue
        if key_node.value in mapping:
            problems.append(Problem(f"'{key_node.value}' is written twice", key_place, "keep one of them"))
        inner = _convert(loader, value_node, label, problems, depth + 1, counter)
        mapping[key_node.value] = Written(inner.value, key_place)
    return Written(mapping, place)


def flat(key: str, item: Any) -> Iterator[tuple[str, Any]]:
    """Every plain value inside ``item`` with its dotted key."""
    if isinstance(item, dict) and item:
        for inner, value in item.items():
            yield from flat(f"{key}.{inner}", value)
    else:
        yield key, item
