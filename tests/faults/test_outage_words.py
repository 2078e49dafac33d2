"""The words of ``on_error`` for each family of operations, held against servers that are out of reach."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from storeroom import ConfigurationError, transaction
from storeroom.backends.memcached import MemcachedCache
from storeroom.exceptions import NotSupportedError, StorageError, UnansweredError, UnreachableError
from tests.faults.away import OF_DJANGO_REDIS, OPERATIONS, Away, Operation, outcome

RAISES = UnreachableError
"""A plain outage, and no ValueError."""

COMPUTED: Mapping[str, Any] = {
    "get_or_set": "computed", "get_or_set_many": {"k": "computed"}, "refresh": "computed",
}  # fmt: skip

READS: Mapping[str, Any] = {"get": "default", "get_many": {}, "has_key": False, "ttl": 0, "pttl": 0}
WRITES: Mapping[str, Any] = {
    "set": None, "set_many": ["a", "b"], "add": False, "set with nx=True": False, "touch": False, "expire": False,
    "persist": False, "expire_at": False, "delete": False, "delete_many": None,
}  # fmt: skip
COUNTS = ("incr", "decr", "incr_version", "decr_version")
WHOLE: Mapping[str, Any] = {"clear": None, "keys": [], "count": 0, "iter_keys": [], "delete_pattern": 0}

ANSWERS: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("read", "miss"): {**READS, **COMPUTED},
    ("read", "raise"): dict.fromkeys((*READS, *COMPUTED), RAISES),
    ("write", "miss"): {**WRITES, **COMPUTED},
    ("write", "raise"): dict.fromkeys((*WRITES, *COMPUTED), RAISES),
    ("count", "miss"): dict.fromkeys(COUNTS, UnansweredError),
    ("count", "none"): dict.fromkeys(COUNTS, None),
    ("count", "raise"): dict.fromkeys(COUNTS, RAISES),
    ("whole", "miss"): WHOLE,
    ("whole", "raise"): dict.fromkeys(WHOLE, RAISES),
}
"""Family and word -> operation -> its answer, or the class of its error."""

DEFAULTS = {"read": "miss", "write": "miss", "count": "miss", "whole": "raise"}


def answers_of(policy: Mapping[str, str]) -> dict[str, Any]:
    """Return operation -> its answer under a policy; what reads and writes raises if either does."""
    found: dict[str, Any] = dict.fromkeys(("lock", "invalidate_tags"), RAISES)
    for family, word in (DEFAULTS | policy).items():
        found |= {name: answer for name, answer in ANSWERS[family, word].items() if found.get(name) is not RAISES}
    return found


def asked(cache: Any) -> Iterator[tuple[str, Operation]]:
    """Yield the operations that a cache has, by name."""
    for name, operation in OPERATIONS.items():
        if name not in OF_DJANGO_REDIS or hasattr(cache, "iter_keys"):
            yield name, operation


def test_every_operation_has_a_family() -> None:
    """Each operation is held by one word or two, or raises under all."""
    assert answers_of({}).keys() == OPERATIONS.keys()


POLICIES: list[dict[str, str]] = [
    {},
    *({family: word} for family, word in ANSWERS if DEFAULTS[family] != word),
    {"read": "miss", "write": "miss", "count": "none", "whole": "miss"},
    {"read": "raise", "write": "raise", "count": "none"},
]


@pytest.mark.parametrize("kind", ["alone", "tiered"])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_each_family_answers_by_its_word(away: Away, policy: dict[str, str], kind: str, mode: str) -> None:
    """A word holds for its family and no other, also where a memory tier stands before the storage."""
    cache = away.cache(policy) if kind == "alone" else away.tiered(policy)
    expected = answers_of(policy)
    errors = cache.stats().errors
    for name, operation in asked(cache):
        result = outcome(cache, operation, mode)
        if name in {"keys", "count"} and issubclass(away.backend, MemcachedCache):
            assert result is NotSupportedError
        elif isinstance(expected[name], type):
            assert issubclass(result, expected[name]), name
            assert issubclass(result, ValueError) == (expected[name] is UnansweredError), name
        else:
            assert result == expected[name], name
            assert type(result) is type(expected[name]), name
    assert cache.stats().errors > errors, "they are counted"


def test_a_counter_with_a_default_is_none_too(away: Away, mode: str) -> None:
    """Where incr() would begin a counter, an outage is answered by the same word."""

    def begun(policy: dict[str, str]) -> Any:
        return outcome(away.cache(policy), lambda cache: cache.incr("n", 2, default=1), mode)

    assert begun({"count": "none"}) is None
    assert issubclass(begun({"count": "miss"}), UnansweredError)
    assert issubclass(begun({"count": "raise"}), UnreachableError)


def test_prune_is_of_the_whole(away: Away) -> None:
    """prune() has nothing to remove, where there is anything to prune."""
    assert away.cache({"whole": "miss"}).prune() == 0


def test_a_dict_of_one_word_is_that_word(away: Away) -> None:
    """Families left out have their defaults, which are those of "miss"."""
    assert away.cache({}).settings.options["on_error"] == DEFAULTS
    assert away.cache("miss").settings.options["on_error"] == "miss"


def test_a_count_that_was_held_back_is_ignored_too(away: Away) -> None:
    """After a transaction the changes follow the policy: with "none" a count that cannot be made is no error."""
    for word in ("none", "raise"):
        cache = away.cache({"count": word})
        begin = transaction()
        begin.__enter__()
        cache.incr("n", default=1)
        if word == "none":
            begin.__exit__(None, None, None)
        else:
            with pytest.raises(StorageError):
                begin.__exit__(None, None, None)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (
            {"raed": "miss"},
            "expected a dict with the keys read, write, count, whole, not 'raed' (Did you mean 'read'?)",
        ),
        ({"read": "mis"}, "expected \"miss\" or \"raise\" for 'read', not 'mis' (Did you mean 'miss'?)"),
        ({"read": "none"}, "expected \"miss\" or \"raise\" for 'read', not 'none'"),
        ({"count": "nothing"}, 'expected "miss" or "none" or "raise" for \'count\', not \'nothing\''),
        ({"count": None}, 'expected "miss" or "none" or "raise" for \'count\', not None'),
        ({"read": "fallback:memory"}, "write 'fallback:memory' in place of the dict"),
        ({1: "miss"}, "not 1"),
        (
            "mis",
            'expected "miss", "raise", "fallback:<alias>" or a dict of words for "read", "write", "count", "whole"',
        ),
        (["miss"], 'expected "miss", "raise", "fallback:<alias>" or a dict'),
    ],
)
def test_another_word_is_a_mistake_at_start(away: Away, policy: Any, told: str) -> None:
    """A misspelt family or word is named, with the nearest right one, before any server is asked."""
    with pytest.raises(ConfigurationError) as caught:
        away.cache(policy)
    assert "['OPTIONS']['on_error'] is" in str(caught.value)
    assert told in str(caught.value)
