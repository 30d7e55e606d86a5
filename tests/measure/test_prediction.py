"""Answers row by row: put together from parts, and what is said at a threshold."""

from __future__ import annotations

import numpy as np

from headstart.measure.prediction import Predictions

CLASSES = ("ant", "bee")
NONE: dict[int, str] = {}


def test_an_answer_exactly_at_the_threshold_is_given() -> None:
    shares = np.array([[0.75, 0.25], [0.7421875, 0.2578125]])  # exact in binary
    sure, unsure = Predictions.gather(("a", "b"), CLASSES, [(np.arange(2), shares, NONE)], threshold=0.75)
    assert (sure.label, sure.problem) == ("ant", "")
    assert (unsure.label, unsure.problem) == ("ant", "don't know: 0.742 is below 0.750")


def test_a_label_exactly_at_the_threshold_is_given() -> None:
    shares = np.array([[0.5, 0.25], [0.5, 0.75], [0.4921875, 0.25]])
    parts = [(np.arange(3), shares, NONE)]
    found = Predictions.gather(("a", "b", "c"), CLASSES, parts, given_from=0.5)
    assert [each.labels for each in found] == [["ant"], ["bee", "ant"], []]
    more = Predictions.gather(("a", "b", "c"), CLASSES, parts, given_from=0.5, top_k=2)
    assert [len(each.labels) for each in more] == [2, 2, 2], "so many were asked for"


def test_parts_may_come_in_any_order() -> None:
    shares = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    parts = [(np.array([3]), shares[:1], {1: "cannot be read"}), (np.array([2, 0]), shares[1:], NONE)]
    found = Predictions.gather(("a", "b", "c", "d"), CLASSES, parts)
    assert [each.name for each in found] == ["a", "b", "c", "d"]
    assert [each.label for each in found] == ["ant", "", "bee", "ant"]
    assert [each.problem for each in found] == ["", "cannot be read", "", ""]
