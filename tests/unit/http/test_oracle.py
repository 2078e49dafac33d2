"""The rules beside http-cache-semantics, which npm's clients use: where both mean the same, they say the same."""

from email.utils import formatdate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom.http import Kind, Lifetimes, Policy, judge, made, storable, variant
from tests.http_suite import Oracle
from tests.unit.http.requests_of import NOW, headers, request

POLICY = Policy(honours_requests=True)


@pytest.fixture(scope="module")
def oracle():
    oracle = Oracle()
    yield oracle
    oracle.close()


def one_of(*texts):
    return st.sampled_from(texts)


SECONDS = st.integers(0, 100)
#: Left out, as the package means something else by them: must-revalidate and proxy-revalidate (to it never fresh),
#: Set-Cookie (to it storable), and what it reads by JavaScript's own numbers, dates and commas.
DIRECTIVES = st.lists(
    st.one_of(
        SECONDS.map("max-age={}".format),
        SECONDS.map("s-maxage={}".format),
        SECONDS.map('max-age="{}"'.format),
        one_of("no-store", "private", "public", "no-cache", "immutable", "x=y"),
    ),
    max_size=4,
    unique_by=lambda directive: directive.partition("=")[0],
)
VARIED = st.dictionaries(one_of("a", "b"), one_of("", "1", "2"))


@st.composite
def responses(draw):
    lines = []
    if found := draw(DIRECTIVES):
        lines.append("Cache-Control: " + ", ".join(found))
    if draw(st.booleans()):
        lines.append(f"Expires: {formatdate(NOW + draw(st.integers(-50, 100)), usegmt=True)}")
    if draw(st.booleans()):
        lines.append(f"Age: {draw(SECONDS)}")
    if draw(st.booleans()):
        lines.append(f"Vary: {draw(one_of('a', 'a, b', 'A,B', '*'))}")
    return draw(one_of(200, 203, 301, 404, 206, 500)), lines


@st.composite
def directives_of_a_request(draw):
    return [draw(one_of("no-cache", "x=y", f"max-age={draw(SECONDS)}", f"min-fresh={draw(st.integers(1, 100))}"))]


def as_dict(pairs):
    return {name.decode(): value.decode() for name, value in pairs}


@settings(max_examples=150, deadline=None)
@given(
    responses(), st.booleans(), st.booleans(), VARIED, VARIED, st.one_of(st.just([]), directives_of_a_request()),
    st.integers(1, 150),
)  # fmt: skip
def test_the_rules_agree_with_the_package_of_npm(oracle, response, authorized, hides, one, other, asked, later):
    """Whether a response is stored, for how long it is fresh, and whether it answers another request later."""
    status, lines = response
    first = [f"{name}: {value}" for name, value in one.items()]
    first += ["Authorization: x"] * authorized + ["Cache-Control: no-store"] * hides
    next_lines = [f"{name}: {value}" for name, value in other.items()] + [f"Cache-Control: {text}" for text in asked]
    sent = headers(*lines)
    answer = oracle.ask(
        {
            "request": {"method": "GET", "url": "/page", "headers": as_dict(headers("Host: x", *first))},
            "response": {"status": status, "headers": as_dict(sent)},
            "now": NOW,
            "later": later,
            "next": {"method": "GET", "url": "/page", "headers": as_dict(headers("Host: x", *next_lines))},
        }
    )
    times = storable(request(*first), status, sent, POLICY, NOW)
    if not isinstance(times, Lifetimes):
        # Not stored, or stored by the package and never used without the application.
        assert not answer["storable"] or answer["use"] == "miss" or status == 500
        return
    assert answer["storable"] or status == 500  # an error is stored by its own word, RFC 9111 §3
    if status == 500:
        return
    assert times.fresh == answer["lifetime"] - (answer["age"] - later)
    record = made(status, sent, times, POLICY, NOW)
    same = variant(request(*first), times.vary, POLICY) == variant(request(*next_lines), times.vary, POLICY)
    use = judge(record, request(*next_lines), NOW + later, POLICY).kind if same else Kind.MISS
    assert {Kind.HIT: "hit", Kind.STALE: "stale", Kind.MISS: "miss"}[use] == answer["use"]
