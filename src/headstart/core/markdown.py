"""Names of the user's in Markdown files that we write."""

from __future__ import annotations


def plain(name: str) -> str:
    """The name without what could be markup: unprintable characters, code, tags, links and table bars become spaces."""
    return "".join(character if character.isprintable() and character not in "`<>[]|" else " " for character in name)
