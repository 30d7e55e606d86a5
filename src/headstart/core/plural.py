"""How a count is told: the number with commas, and the words after it that agree with it."""

from __future__ import annotations


def plural(value: int, one: str, many: str = "") -> str:
    """1 picture, 3 pictures, 2 classes; 1 row has, 2 rows have, where more than a noun changes."""
    many = many or (f"{one}es" if one.endswith("ss") else f"{one}s")
    return f"{value:,} {one if value == 1 else many}"
