"""Where the rule for small data begins and ends, to the row."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.data import sources
from headstart.data.reading.division import MIN_TEST_ROWS
from headstart.data.settings import DEFAULT_TEST, DataSettings


@pytest.mark.parametrize("count", [326, 330, 331, 333, 336])
def test_fifty_rows_are_enough_for_a_test_split_and_one_fewer_are_not(count: int) -> None:
    pictures = np.zeros((count, 2, 2), dtype=np.uint8)
    splits = sources.read((pictures, [row % 2 for row in range(count)]), DataSettings(), seed=0)
    share = round(DEFAULT_TEST * count)
    assert share in (MIN_TEST_ROWS - 1, MIN_TEST_ROWS)
    assert (splits.test is not None) == (share == MIN_TEST_ROWS)
    if splits.test is not None:
        assert len(splits.test) == MIN_TEST_ROWS
    assert not any("the test split has only" in note for note in splits.notes)
