"""The rows of a stage from the cache: which view of a row an epoch sees."""

from __future__ import annotations

import numpy as np
import torch

from headstart.data.splits import Rows
from headstart.engine.cache import FrontierCache
from headstart.engine.runtime import Runtime
from headstart.engine.streams import CachedStream, Order


def test_every_epoch_sees_a_row_in_its_next_view() -> None:
    """Row i in view (e + i) modulo V: in V epochs all of them once, and in one epoch all views among the rows."""
    views, count = 3, 8
    told = torch.stack([torch.full((count, 2), float(view)) for view in range(views)])
    told[:, :, 1] = torch.arange(count, dtype=torch.float32)
    rows = Rows(range(count), np.zeros(count, np.int64), tuple(map(str, range(count))))
    stream = CachedStream(Runtime("cpu"), Order(7, 0, rows, 4), FrontierCache.of(told))
    for epoch in range(2 * views):
        for update in stream.epoch(epoch):
            assert update.inputs[:, 1].tolist() == update.rows.tolist()
            assert update.inputs[:, 0].tolist() == ((epoch + update.rows) % views).tolist()
