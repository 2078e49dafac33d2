"""Random requests, changes, invalidations: each answer is one that the application would give to this request."""

import json
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.testing import FakeClock
from tests.integrations.pages.site import AsgiSite, WsgiSite

#: Path to the headers that its page is made of, and names.
MADE_OF = {"/0": [], "/1": ["a"], "/1/2": ["a", "b"], "/3": ["cookie"], "/4": []}
#: Headers that pages differ by, whether they are named or not.
ALWAYS = ["x-forwarded-host", "hx-request"]

VALUES = st.sampled_from(["", "x", "x,y", "1:x", "-"])
COOKIES = st.sampled_from(["", "x", "x=1", "x=1; x=2", "x=2; x=1", "=x", "y; x=1"])
LINES = st.fixed_dictionaries({}, optional=dict.fromkeys(["a", "b", *ALWAYS], VALUES) | {"cookie": COOKIES})
PATHS = st.sampled_from(sorted(MADE_OF))
STEPS = st.one_of(
    st.tuples(st.just("get"), PATHS, LINES, st.sampled_from(["GET", "HEAD"])),
    st.tuples(st.just("get"), PATHS, LINES, st.just("GET")),
    st.tuples(st.just("post"), PATHS),
    st.tuples(st.just("url"), PATHS),
    st.tuples(st.just("prefix"), st.sampled_from(["/", "/1", "/1/", "/4"])),
    st.tuples(st.just("tag"), PATHS),
    st.tuples(st.just("vary"), st.sampled_from(["a", "b"])),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 20.0, 61.0])),
)


class Model:
    """A site whose pages tell what they were made of."""

    def __init__(self, site, clock):
        self.site, self.clock = site, clock
        self.versions = dict.fromkeys(MADE_OF, 0)
        self.made_of = {path: list(names) for path, names in MADE_OF.items()}
        site.script = self.answer

    def answer(self, asked):
        if asked.method == "POST":
            self.versions[asked.path] += 1
            return 200, [], b""
        names = self.made_of[asked.path]
        parts = {name: asked.headers.get(name) for name in [*names, *ALWAYS]}
        vary = [("Vary", ", ".join(names))] if names else []
        return (
            200,
            [("Cache-Control", "max-age=60"), *vary],
            json.dumps([asked.path, self.versions[asked.path], parts]).encode(),
        )

    def get(self, path, lines, method):
        reply = self.site.get(path, *(f"{name}: {value}" for name, value in lines.items()), method=method)
        if method == "HEAD":
            assert reply.body == b""
            return
        told, version, parts = json.loads(reply.body)
        assert (told, version) == (path, self.versions[path])
        for name, value in parts.items():
            if name != "cookie" or lines.get(name):  # an empty one is none
                assert value == lines.get(name), (name, path)

    def do(self, step):
        kind, *rest = step
        pages = self.site.pages
        if kind == "get":
            self.get(*rest)
        elif kind == "post":
            self.site.post(*rest)
        elif kind == "vary":  # /4 is made of more headers from now on, and nobody says so
            if rest[0] not in self.made_of["/4"]:
                self.made_of["/4"].append(rest[0])
                pages.invalidate(url="/4")
        elif kind == "advance":
            self.clock.advance(rest[0])
        else:
            paths = [path for path in MADE_OF if path.startswith(rest[0])] if kind == "prefix" else rest
            for path in paths:
                self.versions[path] += 1
            how = {"url": {"url": f"https://example.com{rest[0]}"}, "prefix": {"prefix": rest[0]}}
            pages.invalidate(**how.get(kind, {"tags": rest}))


@pytest.mark.parametrize("kind", [AsgiSite, WsgiSite], ids=["asgi", "wsgi"])
@pytest.mark.parametrize("storage", ["memory", "files"])
@settings(max_examples=50, deadline=None)
@given(steps=st.lists(STEPS, max_size=25))
def test_every_answer_is_right(kind, storage, tmp_path_factory, steps):
    """No page is another's, none is one that was invalidated."""
    cache = LocMemCache(uuid4().hex, {}) if storage == "memory" else shared_files(tmp_path_factory)
    with FakeClock() as clock:
        site = kind()
        site.begin(cache, tags=lambda request: [request.path])
        model = Model(site, clock)
        for step in steps:
            model.do(step)
        site.end()


def shared_files(tmp_path_factory):
    """Return the file cache of these tests, with nothing in it."""
    cache = FileBasedCache(tmp_path_factory.getbasetemp() / "pages-model", {})
    cache.clear()
    return cache
