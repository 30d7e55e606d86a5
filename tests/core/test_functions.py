"""What a function does is told by its code, not by its name."""

from __future__ import annotations

import functools
import subprocess
import sys
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from headstart.core import functions

SHARE = 0.3


def made(source: str, **names: Any) -> Any:
    """The function ``f`` of a notebook's cell."""
    scope: dict[str, Any] = {"np": np, **names}
    exec(source, scope)
    return scope["f"]


class Scaled:
    def __init__(self, by: float, table: Any = None) -> None:
        self.by, self.table = by, table

    def __call__(self, labels: Any, probabilities: Any) -> float:
        return self.by

    def method(self, labels: Any, probabilities: Any) -> float:
        return self.by


class Told:
    """As transforms of libraries: its repr is what it was made with, and calls leave something behind."""

    def __init__(self, share: float) -> None:
        self.share, self.calls = share, 0

    def __repr__(self) -> str:
        return f"Told(share={self.share}, inside=[{object.__repr__(self)}])"

    def __call__(self, canvas: Any, rng: Any) -> Any:
        self.calls += 1
        return canvas


def transforms(function: Any) -> Any:
    return v2.Compose([v2.Lambda(function), v2.RandomHorizontalFlip(0.3)])


Told.__module__ = "torchvision.transforms"


def closed(over: Any) -> Any:
    return lambda labels, probabilities: over


def inner(value: float) -> Any:
    return made(f"def f(y, p):\n    def g(z):\n        return z * {value}\n    return [g(each) for each in y]")


class Two:
    """Its call goes to another method."""

    def __init__(self, held: Any = None) -> None:
        self.held = held

    def __call__(self, canvas: Any, rng: Any) -> Any:
        return self.other(canvas)

    def other(self, canvas: Any) -> Any:
        return canvas


class Edited(Two):
    def other(self, canvas: Any) -> Any:
        return canvas[::-1]


def renamed(cls: type, name: str) -> Any:
    """An object of a class with that name: what editing it in a notebook gives."""
    held = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
    return type(name, cls.__bases__, held)()


def module(value: float) -> types.ModuleType:
    made_of = types.ModuleType("my_helpers")
    exec(f"def noise(x):\n    return x * {value}", made_of.__dict__)
    return made_of


CALLS = "def f(y, p):\n    return helpers.noise(y)"
DEEP = "def h(y):\n    return y * {}\n\ndef f(y, p):\n    return h(y)"
PAIRS = {
    "constant": (made("f = lambda y, p: .2"), made("f = lambda y, p: .8")),
    "name of an operation": (made("f = lambda y, p: y.min()"), made("f = lambda y, p: y.max()")),
    "operation": (made("f = lambda y, p: y + p"), made("f = lambda y, p: y - p")),
    "default": (made("def f(y, p, by=1): return by"), made("def f(y, p, by=2): return by")),
    "keyword": (made("def f(y, p, *, by=1): return by"), made("def f(y, p, *, by=2): return by")),
    "closure": (closed(1.0), closed(2.0)),
    "array closed over": (closed(np.zeros(3)), closed(np.arange(3.0))),
    "inner function": (inner(1.0), inner(2.0)),
    "constant of the module": (made("def f(y, p): return V", V=1), made("def f(y, p): return V", V=2)),
    "function of the module": (made(DEEP.format(1)), made(DEEP.format(2))),
    "partial": (functools.partial(closed, 1), functools.partial(closed, 2)),
    "attribute": (Scaled(1.0), Scaled(2.0)),
    "attribute of its object": (Scaled(1.0).method, Scaled(2.0).method),
    "set": (made("f = lambda y, p: y in {1, 2}"), made("f = lambda y, p: y in {1, 3}")),
    "in a table": (Scaled(1.0, {"a": [1, (2, {3})]}), Scaled(1.0, {"a": [1, (2, {4})]})),
    "method that a call goes to": (renamed(Two, "Net"), renamed(Edited, "Net")),
    "method of a bound one's object": (renamed(Two, "Net").other, renamed(Edited, "Net").other),
    "function in a library's object": (transforms(lambda x: x), transforms(lambda x: x + 1)),
    "helper in a module": (made(CALLS, helpers=module(1.0)), made(CALLS, helpers=module(2.0))),
    "table of the module": (
        made("def f(y, p): return V['a']", V={"a": 1}),
        made("def f(y, p): return V['a']", V={"a": 2}),
    ),
    "tensor closed over": (closed(torch.zeros(2000)), closed(torch.eye(2000)[0])),
    "array in an attribute": (Two(np.zeros(2000)), Two(np.arange(2000.0))),
    "told by its repr": (Scaled(1.0, Told(1)), Scaled(1.0, Told(2))),
    "made of others": (Scaled(1.0, Scaled(1.0)), Scaled(1.0, Scaled(2.0))),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_another_function_has_another_digest(kind: str) -> None:
    one, other = PAIRS[kind]
    assert functions.digest(one) == functions.digest(one)
    assert functions.digest(one) != functions.digest(other)


def test_the_same_code_is_the_same_function_wherever_it_stands() -> None:
    source = "def f(y, p):\n    return float((p.argmax(1) == y).mean()) * V"
    wanted = functions.digest(made(source, V=SHARE, unused=1))
    assert functions.digest(made("\n\n# moved\n" + source, V=SHARE, unused=2)) == wanted
    assert functions.digest(closed({3, 1, 2})) == functions.digest(closed({2, 3, 1}))


def test_what_holds_itself_ends() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    again = made("def f(y, p):\n    return f(y, p)")
    assert len({functions.digest(closed(loop)), functions.digest(again), functions.digest(len)}) == 3


def test_what_calls_and_chance_leave_behind_is_no_change() -> None:
    transform = Told(0.5)
    before = functions.digest(transform), functions.digest(Told(0.5))
    transform(None, None)
    assert (functions.digest(transform), functions.digest(Told(0.5))) == before
    assert before[0] == before[1]
    drawn = Scaled(1.0, np.random.default_rng()), Scaled(1.0, np.random.default_rng())
    assert functions.digest(drawn[0]) == functions.digest(drawn[1])


def test_functions_are_found_in_settings_with_their_places() -> None:
    @dataclass
    class Stage:
        augment: Any
        epochs: int = 3

    settings = {"metric": closed(1), "plan": [Stage("light"), Stage(closed(2))], "head": {"kind": "linear"}}
    assert [place for place, _ in functions.inside(settings)] == ["metric", "plan.1.augment"]


def test_digests_are_the_same_in_every_process() -> None:
    """Neither places in memory nor the order of sets, which is another in each, are told."""
    source = """
import numpy as np
from headstart.core import functions
names = np.array(["a", "bb", None], dtype=object)
class Mine:
    def __init__(self):
        self.names, self.rng, self.words = names, np.random.default_rng(), {"x", "yy", "zzz"}
    def __call__(self, canvas, rng):
        return {"x", "yy", "zzz"}
print(functions.digest(Mine()), functions.digest(lambda y, p: names))
"""
    told = {subprocess.run([sys.executable, "-c", source], capture_output=True, check=True).stdout for _ in range(3)}
    assert len(told) == 1


def test_what_cannot_be_looked_at_ends_nothing() -> None:
    class Shy:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("not yours")

    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    for held in (Shy(), torch.ones(3, dtype=torch.bfloat16), deep):
        assert functions.digest(closed(held)) == functions.digest(closed(held))
    assert functions.digest(closed(Shy())) != functions.digest(made("f = lambda y, p: .2"))


def test_what_calls_leave_behind_does_not_count_inside() -> None:
    class Counts:
        calls = 0

        def __call__(self, canvas: Any, rng: Any) -> Any:
            self.calls += 1

    mine = Counts()
    with functions.as_they_were():
        before = functions.digest(mine)
        mine(None, None)
        assert functions.digest(mine) == before
    assert functions.digest(mine) != before, "a changed attribute is a change"
