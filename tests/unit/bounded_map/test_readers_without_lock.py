"""Readers that take no lock never see half of a write."""

import sys
import threading

import pytest

from storeroom.eviction import ENCODED, Entry
from tests.handles import MapInPython
from tests.unit.bounded_map.maps import full, put


def read(bounded, key, now):
    """Read a value as a backend does without the lock; None for a miss."""
    entry: Entry | None = bounded.entries.get(key)
    if entry is None or entry.expires_at <= now:
        return None
    freq = entry.freq
    if freq < 2:
        entry.freq = freq + 1
    value = entry.value
    return value if value is not ENCODED else entry.encoded


def between_lines(function, callback):
    """Call the function; call back before each line executed by it and by the functions it calls."""

    def trace(frame, event, _argument):
        if event == "line":
            callback()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("old", ["old", b"old"])
@pytest.mark.parametrize("new", ["new", b"new"])
def test_an_overwrite_shows_the_old_value_or_the_new_one_at_every_step(checked, old, new):
    """A reader between any two lines of an overwrite sees the old value, then the new one.

    Stepping is needed, since threads would take turns between two stores by luck only.
    """
    bounded = checked(10)
    put(bounded, "key", old, expires_at=5.0)
    seen = []
    between_lines(lambda: put(bounded, "key", new, expires_at=9.0), lambda: seen.append(read(bounded, "key", 4.0)))
    assert set(seen) == {old, new}
    assert seen == sorted(seen, key=[old, new].index)  # once new, never old again


def test_an_expired_value_is_never_vouched_for_by_a_new_deadline(checked):
    """A reader between any two lines of overwriting an expired entry sees a miss or the new value."""
    bounded = checked(10)
    put(bounded, "key", "old", expires_at=5.0)
    seen = []
    between_lines(
        lambda: put(bounded, "key", "new", expires_at=9.0, now=6.0), lambda: seen.append(read(bounded, "key", 6.0))
    )
    assert set(seen) == {None, "new"}


def test_an_insert_shows_nothing_until_the_entry_is_complete(checked):
    """A reader between any two lines of an insert sees a miss or the whole entry."""
    bounded = full(10)
    bounded.__class__ = MapInPython  # a compiled insert has no lines
    seen = []
    between_lines(lambda: put(bounded, "key", b"new", expires_at=9.0), lambda: seen.append(read(bounded, "key", 4.0)))
    assert set(seen) == {None, b"new"}


def look(bounded, stop, wrong):
    while not stop.is_set():
        for number in range(40):
            found = read(bounded, f"key{number}", 4.0)
            if found not in {None, f"key{number}", f"key{number}".encode()}:
                wrong.append((number, found))


def write(bounded, lock):
    for number in range(4_000):
        key = f"key{number * 7 % 40}"
        with lock:
            if number % 11 == 0:
                bounded.delete(key)
            put(bounded, key, key.encode() if number % 2 else key, expires_at=5.0 + number % 3)


@pytest.fixture
def eager_switching():
    """Let threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.slow
@pytest.mark.usefixtures("eager_switching")
def test_hits_without_the_lock_never_see_half_of_a_write(checked):
    """Readers without the lock see a miss or the value of that very key, while writers overwrite and evict."""
    bounded = checked(20)
    lock, stop, wrong = threading.Lock(), threading.Event(), []
    readers = [threading.Thread(target=look, args=(bounded, stop, wrong)) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(bounded, lock)) for _ in range(2)]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert len(bounded) == 20
