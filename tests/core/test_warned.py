"""Warnings point at the line of the user's own, however deep in the package they arise."""

import inspect
from types import FunctionType

import pytest

from headstart.core import warned


def sink(depth):
    return sink(depth - 1) if depth else warn("deep")  # noqa: F821


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_a_warning_points_at_the_first_line_outside_of_the_package(depth):
    package = {"__name__": "headstart.made_up", "warn": warned.warn}
    package["sink"] = FunctionType(sink.__code__, package)  # as if a module of the package held it
    here = inspect.currentframe().f_lineno + 2
    with pytest.warns(UserWarning, match="deep") as found:
        package["sink"](depth)
    assert (found[0].filename, found[0].lineno) == (__file__, here)
