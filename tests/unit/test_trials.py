"""Names of the classes in a pickle: found in any part of it, at a cost that does not grow with its texts."""

import pickle
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

import pytest

from storeroom.storage.trials import names_in

#: A text in which pickle's code for a name stands in every character, and that is large enough to lie between frames.
LARGE: Final = "\u2493" * 100_000

NAMED: Final = {"decimal.Decimal", "fractions.Fraction", "datetime.date"}


def objects() -> list[Any]:
    return [Decimal(1), Fraction(1, 2), date(2026, 1, 1)]


@pytest.mark.parametrize(
    "value",
    [
        objects(),
        [LARGE, *objects()],
        [*objects(), LARGE],
        [1, LARGE, 2, LARGE, *objects()],
        [LARGE, 1, LARGE.encode(), 300, "", objects(), bytearray(LARGE.encode())],
        {"a": LARGE, "b": {LARGE: objects()}},
        (LARGE, Decimal(1), LARGE, Fraction(1), LARGE, date(2026, 1, 1)),
        [["text"] * 50_000, LARGE, *objects(), [[]] * 50_000],
    ],
)
def test_names_are_found_wherever_they_stand(value: Any) -> None:
    """The classes before, between and behind large texts and bytes are told, and nothing out of these."""
    assert names_in(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)) == NAMED


def test_plain_data_names_nothing() -> None:
    """Texts that look like names are none."""
    for value in ([LARGE], ["\u2493" * 50, 1], {LARGE: [1, LARGE]}, [b"\x94\x93" * 50_000]):
        assert names_in(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)) == set()


def test_bytes_that_are_no_pickle_end_the_search() -> None:
    """What is damaged is searched without an error: a log line about it needs the names that are left."""
    whole = pickle.dumps([LARGE, *objects()], pickle.HIGHEST_PROTOCOL)
    for damaged in (whole[:-1000], whole[1000:], bytes(100_000) + whole, b"\x80\x05" + b"\x93" * 100_000):
        assert names_in(damaged) <= NAMED | {"Decimal", "Fraction", "date"}


class Counted(bytes):
    """A pickle that counts the bytes that are searched."""

    searched = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
        found = bytes.find(self, sub, start, len(self) if end is None else end)
        self.searched += (found if found >= 0 else len(self) if end is None else end) - start
        return found


@pytest.mark.parametrize("value", [{"text": LARGE}, [LARGE], [LARGE.encode(), 1, LARGE]])
def test_large_texts_are_not_searched(value: Any) -> None:
    """Of a value that is one large text, whatever its letters, a few bytes are searched for names."""
    counted = Counted(pickle.dumps(value, pickle.HIGHEST_PROTOCOL))
    assert names_in(counted) == set()
    assert counted.searched < 1000 < len(counted)
