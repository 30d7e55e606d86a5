"""Sources of settings laid on top of each other: a file, then the command line; later ones win, place by place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from headstart.core.errors import Problem
from headstart.core.settings import Keys, Written, text_of

Known = Callable[[Keys], Collection[str]]  # the settings that exist inside these keys; empty where anything goes
Settle = Callable[[Written, Keys, Written], tuple[Keys, Written]]  # (what stands so far, keys, value) -> where it goes


class Layers:
    """``root`` is what all sources together say; ``problems`` and ``notes`` collect what there is to tell.

    ``aliases`` maps other names to ours, used wherever ours is known; ``settle`` moves short forms to their place.
    """

    def __init__(self, known: Known, aliases: Mapping[str, str], settle: Settle) -> None:
        self.root = Written({}, "default")
        self.problems: list[Problem] = []
        self.notes: dict[str, str] = {}
        self._known, self._aliases, self._settle = known, aliases, settle

    def take(self, source: Sequence[tuple[Keys, Written]]) -> None:
        """Lay one source on top, what is whole before its parts (a plan before what is said of one of its stages).

        Within one source a setting may be given only once.
        """
        given: dict[Keys, str] = {}
        for keys, item in sorted(source, key=lambda pair: len(pair[0])):
            path, settled = self._settle(self.root, self._names(keys), item)
            path = self._names(path)
            for leaf_path, leaf in self._leaves(path, self._renamed(path, settled)):
                if leaf_path in given:
                    names = " and as ".join(f"'{name}'" for name in dict.fromkeys((given[leaf_path], text_of(keys))))
                    self.problems.append(Problem(f"given twice, as {names} ({leaf.place})", text_of(leaf_path)))
                given[leaf_path] = text_of(keys)
                self._put(leaf_path, leaf)

    def _names(self, keys: Keys) -> Keys:
        path: Keys = ()
        for key in keys:
            path = (*path, self._name(path, key))
        return path

    def _name(self, scope: Keys, key: str | int) -> str | int:
        known = self._known(scope)
        name = self._aliases.get(key) if isinstance(key, str) and key not in known else None
        if name is None or name not in known:
            return key
        self.notes[str(key)] = f"'{key}' is called '{name}' here"
        return name

    def _renamed(self, scope: Keys, item: Written) -> Written:
        """The value with our names inside its mappings and lists."""
        if isinstance(item.value, list) and item.value and isinstance(item.value[0], Written):
            return Written([self._renamed((*scope, i), inner) for i, inner in enumerate(item.value)], item.place)
        if not isinstance(item.value, dict):
            return item
        renamed: dict[str, Written] = {}
        for key, value in item.value.items():
            name = str(self._name(scope, key))
            if name in renamed:
                self.problems.append(Problem(f"given twice, as '{key}' too ({value.place})", text_of((*scope, name))))
            renamed[name] = self._renamed((*scope, name), value)
        return Written(renamed, item.place)

    def _leaves(self, path: Keys, item: Written) -> Iterator[tuple[Keys, Written]]:
        """Mappings of known settings are merged key by key; any other value replaces what stood there."""
        if isinstance(item.value, dict) and item.value and self._known(path):
            for key, inner in item.value.items():
                yield from self._leaves((*path, key), inner)
        else:
            yield path, item

    def _put(self, path: Keys, item: Written) -> None:
        """Set one value; mappings on the way are made, entries of lists have to exist."""
        here = self.root
        for depth, key in enumerate(path):
            last = depth == len(path) - 1
            inside = here.value
            if isinstance(inside, dict):
                here = inside[str(key)] = item if last else inside.get(str(key), Written({}, item.place))
            elif isinstance(inside, list) and isinstance(key, int) and key < len(inside):
                here = inside[key] = item if last else inside[key]
            else:
                holder = text_of(path[:depth]) or "it"
                what = f"{holder} is {inside!r}"
                if isinstance(inside, list):
                    what = f"{holder} has {len(inside)} entries: {', '.join(map(_title, inside))}"
                self.problems.append(Problem(f"there is nothing of that name, {what} ({item.place})", text_of(path)))
                return


def _title(entry: Written) -> str:
    """Of an entry of a list, for messages: what it is, or what its settings belong to."""
    return ", ".join(map(str, entry.value)) if isinstance(entry.value, dict) else str(entry.value)
