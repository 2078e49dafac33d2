"""Families of keys: the counts of keys that are alike, such as those of all users.

A key's family is the first of the alias's patterns that it matches. Else it is the key's first part, up to a colon,
with numbers, UUIDs and other identifiers in it as ``*``: ``user:7:name`` is of ``user``, ``row-7`` of ``row-*``.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from importlib import import_module
from typing import Any, Final

from storeroom.engines.counts import Counters, Family
from storeroom.late import pattern

__all__ = ["MOST_FAMILIES", "OTHER", "Families"]

MOST_FAMILIES: Final = 64
"""Families that are told apart; a program whose keys begin with anything must not fill the memory with counts."""

OTHER: Final = "other"
"""The family of all keys of further ones."""

_MOST_KNOWN: Final = 4096
"""Beginnings of keys whose family is remembered: a few hundred kilobytes."""

_FEW_KNOWN: Final = 512
"""Of these, the most with numbers as they are: rows by their numbers must not put out all others."""

_LONGEST: Final = 60
"""Characters of a key that its family's name is made of."""

_LOOKED_AT: Final = 250
"""Characters of a key that a pattern sees: a long one must not take long."""

_UUID: Final = pattern("[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RUN: Final = pattern("(?<![0-9a-zA-Z])[a-zA-Z]*+[0-9][0-9a-zA-Z]*")
_IDENTIFIER: Final = pattern("[0-9a-fA-F]{8,}|[0-9a-zA-Z]{20,}")
"""Of a digest, or a token such as the key of a session."""
_DIGEST: Final = "00000000"
"""One that stands for all of them, but for those of letters alone, which are words."""
_NUMBER: Final = pattern("[0-9]+")
_ZEROS: Final = str.maketrans("123456789", "000000000")


class Families:
    """The families of one handle's keys, and where they are counted.

    Attributes:
        known: the counts of the families of texts, which are keys or, without patterns, their beginnings.

    Args:
        patterns: as in file names: "*" for any text, "?" for a character, "[...]" for one of some.
        counters: theirs are raised.
    """

    def __init__(self, patterns: Sequence[str], counters: Counters) -> None:
        self._patterns = [(each, pattern(import_module("fnmatch").translate(each)).match) for each in patterns]
        self._counters = counters
        self.known: dict[str, Family] = {}
        self._names: dict[str, str] = {}

    def of(self, key: object) -> Family:
        """Return the counts of a key's family."""
        text = key if type(key) is str else str(key)
        text = text[:_LOOKED_AT] if self._patterns else text[:_LONGEST].partition(":")[0]
        return self.known.get(text) or self._learnt(text)

    def name_of(self, key: object) -> str:
        """Return the name of a key's family."""
        text = key if type(key) is str else str(key)
        text = text[:_LOOKED_AT] if self._patterns else text[:_LONGEST].partition(":")[0]
        if (name := self._names.get(text)) is None:
            if len(self._names) >= _MOST_KNOWN:
                self._names.clear()
            name = self._names[text] = self._name_of(text)
        return OTHER if name not in self._counters.families and len(self._counters.families) >= MOST_FAMILIES else name

    def add_misses(self, keys: Collection[object]) -> None:
        """Count misses of these keys."""
        for family, number in self._of_each(keys, None):
            family.misses += number

    def add_hits(self, keys: Collection[object], ends: tuple[str, str] | None = None) -> None:
        """Count hits of these keys: see batches.extent() on `ends`."""
        for family, number in self._of_each(keys, ends):
            family.hits += number

    def add_sets(self, keys: Collection[object], ends: tuple[str, str] | None = None) -> None:
        """Count writes of these keys: see batches.extent() on `ends`."""
        for family, number in self._of_each(keys, ends):
            family.sets += number

    def _of_each(self, keys: Collection[object], ends: tuple[str, str] | None) -> Sequence[tuple[Family, int]]:
        """Return the families of these keys, each with a number of them; `ends` are the first and the last of texts."""
        texts: Any = keys if ends else list(map(str, keys))
        if self._patterns or not texts:
            return [(self.of(text), 1) for text in texts]
        first, last = (text[:_LONGEST].partition(":") for text in ends or (min(texts), max(texts)))
        if first[1] and first[:2] == last[:2]:  # all others, between these two, begin with the same part
            return [(self.of(first[0]), len(texts))]
        parts = Counter([text[:_LONGEST].partition(":")[0] for text in texts])
        return [(self.of(part), number) for part, number in parts.items()]

    def add_computed(self, keys: Sequence[object], seconds: float) -> None:
        """Count values that were computed together, in so many seconds."""
        for key in keys:
            family = self.of(key)
            family.computed += 1
            family.compute_seconds += seconds / len(keys)

    def _learnt(self, text: str) -> Family:
        known = self.known
        if len(known) >= _MOST_KNOWN:
            known.clear()
        # All numbers of a length are alike, and need not be learnt one by one; a few are, such as that of "v2:user:7".
        # So are all digests.
        if self._patterns:
            alike = text
        elif text.isalnum() and not text.isalpha() and _IDENTIFIER.fullmatch(text):
            alike = _DIGEST
        else:
            alike = text.translate(_ZEROS)
        family = known.get(alike)
        if family is None:
            family = known[alike] = self._counted_as(self._name_of(alike))
        if len(known) < _FEW_KNOWN:
            known[text] = family
        return family

    def _counted_as(self, name: str) -> Family:
        families = self._counters.families
        if name not in families and len(families) >= MOST_FAMILIES:
            name = OTHER
        return families.setdefault(name, Family())

    def _name_of(self, text: str) -> str:
        for name, matches in self._patterns:
            if matches(text):
                return name
        name = text[:_LONGEST].partition(":")[0]
        if name.replace("_", "").isalpha():  # as most are; a start need compile no pattern
            return name
        name = _RUN.sub(_collapsed, _UUID.sub("*", name))
        return name.encode("utf-8", "replace").decode()


def _collapsed(run: Any) -> str:
    return "*" if _IDENTIFIER.fullmatch(run[0]) else _NUMBER.sub("*", run[0])
