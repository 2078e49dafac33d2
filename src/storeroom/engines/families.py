"""Families of keys: the counts of keys that are alike, such as those of all users.

A key's family is the first of the alias's patterns that it matches. Else it is the key's first part, up to a colon,
with numbers, UUIDs and other identifiers in it as ``*``: ``user:7:name`` is of ``user``, ``row-7`` of ``row-*``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import Final

from storeroom.engines.counts import Counters, Family

__all__ = ["LONGEST", "MOST_FAMILIES", "OTHER", "Families"]

MOST_FAMILIES: Final = 64
"""Families that are told apart; a program whose keys begin with anything must not fill the memory with counts."""

OTHER: Final = "other"
"""The family of all keys of further ones."""

_MOST_KNOWN: Final = 4096
"""Beginnings of keys whose family is remembered: a few hundred kilobytes."""

LONGEST: Final = 60
"""Characters of a key that its family's name is made of."""

_LOOKED_AT: Final = 250
"""Characters of a key that a pattern sees: a long one must not take long."""

_UUID: Final = re.compile("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RUN: Final = re.compile("(?<![0-9a-zA-Z])[a-zA-Z]*+[0-9][0-9a-zA-Z]*")
_IS_IDENTIFIER: Final = re.compile("[0-9a-fA-F]{8,}|[0-9a-zA-Z]{20,}").fullmatch
"""Of a digest, or a token such as the key of a session."""
_NUMBER: Final = re.compile("[0-9]+")
_ZEROS: Final = str.maketrans("123456789", "000000000")


class Families:
    """The families of one handle's keys, and where they are counted.

    Attributes:
        known: the counts of the families of texts, which are keys or, without patterns, their beginnings.
        has_patterns: whether there are any.

    Args:
        patterns: as in file names: "*" for any text, "?" for a character, "[...]" for one of some.
        counters: theirs are raised.
    """

    def __init__(self, patterns: Sequence[str], counters: Counters) -> None:
        self._patterns = [(pattern, re.compile(translate(pattern)).match) for pattern in patterns]
        self._counters = counters
        self.known: dict[str, Family] = {}
        self._names: dict[str, str] = {}
        self.has_patterns = bool(patterns)

    def of(self, key: object) -> Family:
        """Return the counts of a key's family."""
        text = key if type(key) is str else str(key)
        text = text[:_LOOKED_AT] if self._patterns else text[:LONGEST].partition(":")[0]
        return self.known.get(text) or self._learnt(text)

    def name_of(self, key: object) -> str:
        """Return the name of a key's family."""
        text = key if type(key) is str else str(key)
        text = text[:_LOOKED_AT] if self._patterns else text[:LONGEST].partition(":")[0]
        if (name := self._names.get(text)) is None:
            if len(self._names) >= _MOST_KNOWN:
                self._names.clear()
            name = self._names[text] = self._name_of(text)
        return OTHER if name not in self._counters.families and len(self._counters.families) >= MOST_FAMILIES else name

    def add_misses(self, keys: Iterable[object]) -> None:
        """Count misses of these keys."""
        for family in self._of_each(keys):
            family.misses += 1

    def add_hits(self, keys: Iterable[object]) -> None:
        """Count hits of these keys."""
        for family in self._of_each(keys):
            family.hits += 1

    def add_sets(self, keys: Iterable[object]) -> None:
        """Count writes of these keys."""
        for family in self._of_each(keys):
            family.sets += 1

    def _of_each(self, keys: Iterable[object]) -> Iterator[Family]:
        if self._patterns:
            yield from map(self.of, keys)
            return
        known = self.known.get
        for key in keys:  # of() without its calls, as there may be hundreds
            text = key if type(key) is str else str(key)
            yield known(text[:LONGEST].partition(":")[0]) or self.of(text)

    def add_computed(self, keys: Sequence[object], seconds: float) -> None:
        """Count values that were computed together, in so many seconds."""
        for key in keys:
            family = self.of(key)
            family.computed += 1
            family.compute_seconds += seconds / len(keys)

    def sample_set(self, key: object) -> None:
        """Count, for this key's family, all writes since the last sample; see Counters.sample()."""
        self.of(key).sets += self._counters.sample()

    def _learnt(self, text: str) -> Family:
        if len(self.known) >= _MOST_KNOWN:
            self.known.clear()
        if not self._patterns:
            text = text.translate(_ZEROS)  # all numbers of a length are alike, and need not be learnt one by one
            if (family := self.known.get(text)) is not None:
                return family
        families, name = self._counters.families, self._name_of(text)
        if name not in families and len(families) >= MOST_FAMILIES:
            name = OTHER
        family = self.known[text] = families.setdefault(name, Family())
        return family

    def _name_of(self, text: str) -> str:
        for pattern, matches in self._patterns:
            if matches(text):
                return pattern
        name = _RUN.sub(_collapsed, _UUID.sub("*", text[:LONGEST].partition(":")[0]))
        return name.encode("utf-8", "replace").decode()


def _collapsed(run: re.Match[str]) -> str:
    return "*" if _IS_IDENTIFIER(run[0]) else _NUMBER.sub("*", run[0])
