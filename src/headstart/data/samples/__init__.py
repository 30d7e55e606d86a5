"""Small labelled sets that every installation has: what ``headstart demo`` trains on, one file a modality.

Each has ``TITLE``, ``ABOUT``, ``BACKBONE``, ``SETTINGS`` of a run, and ``write(folder)``, which leaves what ``fit``
reads: few rows to learn from, as many to choose by, and many to test on. The same rows every time.
"""
