"""Headers of cookies in their usual form are judged at once, as by a look at each cookie."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom.http import Policy
from storeroom.http.fields import cookies
from storeroom.http.requests import are_strange, counted_text

NAMES = st.lists(
    st.sampled_from(["_ga", "_ga*", "s*d", "sid", "a b", "a;b", "=", "*", "", "-", 'x"', "_ga_*", "A", "é"])
)
#: Pieces of headers, among them all that ends a name, a value or a cookie for somebody.
PIECES = [
    "_ga",
    "_ga_1",
    "sid",
    "a b",
    "s*d",
    "=",
    "=1",
    "; ",
    ";",
    " ",
    ",",
    '"',
    "\t",
    "\n",
    "\x0b",
    "A",
    "é",
    "-",
    "x",
]
HEADERS = st.lists(st.sampled_from(PIECES), max_size=12).map(lambda pieces: "".join(pieces).encode("latin-1"))
POLICIES = st.builds(
    lambda ignored, declared, named: Policy(
        ignored_cookies=tuple(ignored), declared_cookies=tuple(declared), vary_on_cookies=named and tuple(named)
    ),
    NAMES, NAMES, st.none() | NAMES,
)  # fmt: skip


def one_by_one(value, policy):
    """Return whether there are strange cookies in a header."""
    named = policy.cookie_names or frozenset()
    return any(
        name not in named and (policy.allows_cookie.fullmatch(name) is None or re.search(rb'[\s,"]', text))
        for name, text in cookies(value)
    )


@settings(max_examples=500, deadline=None)
@given(value=HEADERS, policy=POLICIES)
def test_strange_cookies_are_those_of_a_look_at_each(value, policy):
    """Whatever the header, and whatever the names."""
    assert are_strange(value, policy) is bool(one_by_one(value, policy))


@settings(max_examples=500, deadline=None)
@given(value=HEADERS, policy=POLICIES)
def test_cookies_that_count_are_those_of_a_look_at_each(value, policy):
    """None if there are none."""
    named, counts = policy.cookie_names, []
    for name, text in cookies(value):
        is_ignored = policy.ignores_cookie.fullmatch(name) and not re.search(rb'[\s,"]', text)
        if not is_ignored if named is None else (name or text) in named:
            counts.append((name, text))
    expected = b"; ".join(b"%b=%b" % pair for pair in sorted(counts, key=lambda pair: pair[0]))
    assert counted_text(value, policy) == (expected or None)


def test_the_usual_form_is_judged_at_once():
    """That of browsers, with the cookies that scripts write; in a time that grows with the length alone."""
    policy = Policy(ignored_cookies=("a*", "aa*", "*a", "a*a*"), vary_on_cookies=("sid", "a*"))
    assert policy.allows_cookies.fullmatch(b"aa=1; a_b=2=3;aaa=; sid=x")
    for value in (b"aa=1,sid=2", b"aa", b"b=1", b"aa=1; b", b'aa="1"', b"a\ta=1", b"=1", b"aa=1 ; aa=2"):
        assert not policy.allows_cookies.fullmatch(value)
    assert policy.allows_cookies.fullmatch(b"aaaa=1; " * 2_000 + b"!") is None
