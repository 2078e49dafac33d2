"""The findings of `storeroom check`: their order, texts and remedies."""

import re
import tomllib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom import checks, manual
from storeroom.backends.locmem import LocMemCache
from tests.unit.checks.configurations import (
    BARE,
    CASES,
    DATABASE,
    DUMMY,
    FILE,
    LOCMEM,
    MEMCACHED,
    REDIS,
    SESSIONS,
    SEVERAL,
    answers_of,
    failing,
    hashed,
    ids,
    on,
    pair,
    placed,
)


def test_every_mistake_of_an_alias_is_found():
    """Four wrong settings of one alias are four findings."""
    found = checks.run(on(LOCMEM, TIMEOUT="x", VERSION="y", OPTIONS={"a": 1, "max_entries": -1}), context=BARE)
    assert len(found) == 4
    assert {finding.id for finding in found} == {"storeroom.E001"}


def test_a_wrong_location_hides_nothing_else():
    """An empty LOCATION is reported together with the other mistakes of its alias."""
    found = ids(on(FILE, "", TIMEOUT=0))
    assert found == {"storeroom.E001", "storeroom.W004", "storeroom.W006"}


def test_errors_come_first_then_the_aliases_in_their_order():
    """Errors precede warnings, and warnings follow the order of the aliases in CACHES."""
    caches = {
        "default": {"BACKEND": LOCMEM, "TIMEOUT": 0, "OPTIONS": {"CULL_FREQUENCY": 0}},
        "b": {"BACKEND": LOCMEM, "LOCATION": "/b"},
        "a": {"BACKEND": "no.such.Class"},
    }
    found = [(finding.id[10:], finding.alias) for finding in checks.run(caches, context=BARE)]
    assert found == [("E002", "a"), ("W004", "default"), ("W007", "default"), ("W002", "b")]


def test_silenced_ids_are_left_out():
    """A silenced id is left out; the others are reported."""
    assert ids(on(LOCMEM, "/x", TIMEOUT=0), silenced=["storeroom.W004"]) == {"storeroom.W002"}


def test_context_is_that_of_this_machine_by_default(monkeypatch):
    """Without a given context, the environment of this process counts."""
    monkeypatch.setenv("WEB_CONCURRENCY", "2")
    assert {finding.id for finding in checks.run(on(LOCMEM))} == {"storeroom.W001"}


@pytest.mark.parametrize(
    ("word", "identifier"),
    [("W001", "storeroom.W001"), ("storeroom.E001", "storeroom.E001"), ("w001", "storeroom.W001"), ("W999", None)],
)
def test_ids_may_be_abbreviated(word, identifier):
    """A short id, in either case, expands to the full id; an unknown one to None."""
    assert checks.full_id(word) == identifier


def test_no_finding_shows_a_password():
    """No finding quotes a password or secret from a URL or an option."""
    caches = pair(
        on(
            FILE, "redis://app:hunter2@db:6379/0?password=hunter2", OPTIONS={"secret": "hunter2", "password": "hunter2"}
        ),
        on(REDIS, ["redis://app:hunter2@db:6379/0", "/path"]),
    )
    found = checks.run(caches, context=BARE)
    assert {"storeroom.E001", "storeroom.E003"} <= {finding.id for finding in found}
    assert "hunter2" not in str([finding.as_dict() for finding in found])


@pytest.fixture
def fired(tmp_path):
    """A finding of every rule that the table breaks, and more."""
    return [
        finding
        for case in CASES
        if case.fires
        for finding in checks.run(placed(case.caches, tmp_path), context=case.context, probes=answers_of(case))
    ]


def test_every_finding_is_written_in_sentences(fired):
    """Each finding has a well-formed id, a level to match, and texts that are whole sentences."""
    for finding in fired:
        assert re.fullmatch(r"storeroom\.[EW]\d{3}", finding.id)
        assert finding.level == {"E": "error", "W": "warning"}[finding.id[10]]
        for text in (finding.what, finding.rule.why):
            assert not text[0].islower()
            assert text.endswith((".", "?", "'"))
        assert not finding.rule.title.endswith(".")
        assert finding.remedy == "" or finding.remedy[-1] in ".:?"


def test_snippets_are_valid_in_both_languages(fired):
    """The snippet of a finding parses, as Python and as TOML, to the mended settings."""
    for finding in fired:
        if finding.mended:
            assert eval("{" + finding.snippet() + "}") == finding.mended
            parsed = tomllib.loads(finding.toml_snippet())["caches"]
            if "TIMEOUT" not in str(finding.mended):
                assert parsed == finding.mended


def test_a_mended_setting_mends(tmp_path):
    """A configuration with the recommended settings no longer has the finding, and has no new one."""
    for case in CASES:
        if not case.fires:
            continue
        caches = placed(case.caches, tmp_path)
        before = checks.run(caches, context=case.context)
        for finding in before:
            if finding.id != case.id or not finding.mended:
                continue
            mended = {**caches, **{name: caches[name] | change for name, change in finding.mended.items()}}
            after = {(each.id, each.alias) for each in checks.run(mended, context=case.context)}
            assert (finding.id, finding.alias) not in after, finding.what
            # Not the fault of the remedy: a directory that this user cannot write to, a secret that the user has
            # to choose, and further mistakes about a server that could not be made out before.
            excused = {f"storeroom.{rule}" for rule in ("E001", "E002", "W010", "W017", "W018", "W020", "W021")}
            new = after - {(each.id, each.alias) for each in before}
            assert {each for each in new if each[0] not in excused} == set(), finding.what


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=5,
)
PATHS = st.sampled_from(
    [LOCMEM, FILE, DUMMY, REDIS, MEMCACHED, DATABASE, "django.core.cache.backends.x.Y", LocMemCache]
)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "BACKEND": PATHS | ANYTHING,
        "LOCATION": st.sampled_from(["/a", "b", "redis://u:p@[::1]:x/0", "~nobody/x", "C:\\", "t_table"]) | ANYTHING,
        "TIMEOUT": ANYTHING,
        "KEY_PREFIX": ANYTHING,
        "VERSION": ANYTHING,
        "KEY_FUNCTION": st.sampled_from([hashed, failing, "a.b"]) | ANYTHING,
        "OPTIONS": st.dictionaries(st.sampled_from(["MAX_ENTRIES", "max_bytes", "CULL_FREQUENCY", "db"]), ANYTHING)
        | ANYTHING,
        "TIMOUT": ANYTHING,
    },
)


@settings(deadline=None, max_examples=200)
@given(
    caches=st.dictionaries(st.sampled_from(["default", "other", "a:1", ""]), SETTINGS | ANYTHING, max_size=3),
    context=st.sampled_from([BARE, SEVERAL, SESSIONS, replace(BARE, in_django=True)]),
)
def test_any_configuration_is_checked_without_a_crash(caches, context):
    """Arbitrary CACHES yield findings with known ids and printable snippets, and no exception."""
    for finding in checks.run(caches, context=context):
        assert finding.as_dict()["id"] in checks.RULES
        finding.snippet()
        finding.toml_snippet()


def test_a_finding_as_a_dict_tells_everything():
    """as_dict() of a finding holds its rule, its alias, its remedy and the mended settings."""
    (finding,) = checks.run(on(LOCMEM, TIMEOUT=0), context=BARE)
    assert finding.as_dict() == {
        "level": "warning",
        "id": "storeroom.W004",
        "title": "A TIMEOUT of 0 stores nothing",
        "why": finding.rule.why,
        "alias": "default",
        "what": "TIMEOUT is 0.",
        "remedy": finding.remedy,
        "mended": {"default": {"TIMEOUT": None}},
        "command": "",
        "docs": "docs/common-mistakes.md#w004",
        "url": manual.address("docs/common-mistakes.md#w004"),
    }
