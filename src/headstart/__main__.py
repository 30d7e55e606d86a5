"""``python -m headstart``, and ``torchrun --nproc_per_node 2 -m headstart fit photos/``."""

from __future__ import annotations

from headstart.cli import main

main()
