"""What the fork server imports: one life in advance, so that no life waits for an import of its own."""

import os
import tempfile
from pathlib import Path

import nursery

os.environ.setdefault("OMP_NUM_THREADS", "1")
with tempfile.TemporaryDirectory(prefix="headstart-warm-") as folder:
    before = os.environ.get("HEADSTART_CACHE")
    os.environ["HEADSTART_CACHE"] = folder
    import torch

    torch.set_num_threads(1)
    nursery.run_fit({"settings": {"output_dir": folder}}, Path(folder))
    if before is None:
        del os.environ["HEADSTART_CACHE"]
    else:
        os.environ["HEADSTART_CACHE"] = before
