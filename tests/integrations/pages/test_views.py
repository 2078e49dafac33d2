"""@page: options of one view's pages, written where it is."""

import inspect

import flask
import pytest

from storeroom.exceptions import ConfigurationError
from storeroom.integrations.wsgi import PageCache
from storeroom.pages import page
from tests.integrations.pages.site import page as script
from tests.integrations.pages.test_wsgi import get


def decorated(site, view, **options):
    """Return the script of a view, coroutine function or not, with options of its own."""
    if site.kind == "wsgi":
        return page(**options)(view)

    async def awaits(asked):
        return view(asked)

    return page(**options)(awaits)


def test_a_view_has_a_time_of_its_own(site, any_cache, clock):
    """Other pages have that of the page cache: none, here."""
    site.begin(any_cache, hit_for_miss=0)
    plain, view = script(), decorated(site, script(), timeout="5m", browser_timeout=9)
    site.script = lambda asked: view(asked) if asked.path == "/page" else plain(asked)
    assert site.bodies(2) == ["run 1"] * 2
    assert site.get().header("cache-control") == "max-age=9"
    assert site.bodies(2, "/other") == ["run 2", "run 3"]
    clock.advance("6m")
    assert site.get().text == "run 4"


def test_a_page_goes_by_the_tags_of_its_view(site, any_cache):
    """By its request, too; also if it was being made."""
    site.begin(any_cache, timeout=60, tags=["all"])
    site.script = decorated(site, script(), tags=lambda request: ["news", request.path])
    for tag, number in (("news", 1), ("/page", 2), ("other", 3), ("all", 3)):
        assert site.bodies(2) == [f"run {number}"] * 2
        site.pages.invalidate(tags=[tag])

    def invalidates(asked):
        any_cache.invalidate_tags("news")
        return script()(asked)

    site.pages.invalidate(tags=["news"])
    site.script = decorated(site, invalidates, tags=["news"])
    assert len({*site.bodies(3)}) == 3


@pytest.mark.parametrize("how", [{"tags": ["news"]}, {"prefix": "/"}, {"url": "/page"}])
def test_others_wait_while_a_page_that_is_gone_is_made_anew(site, any_cache, how):
    """They find a lease, and not the page of before, which other processes would take for the one that is made."""
    found = []

    def looks(asked):
        found.append(any_cache._get(any_cache.make_key("page:https://example.com/page")))
        return script()(asked)

    site.begin(any_cache, timeout=60, stale_while_revalidate=60)
    site.script = decorated(site, looks, tags=["news"])
    assert site.get().text == "run 1"
    site.pages.invalidate(**how)
    assert site.get().text == "run 2"
    assert [entry.has_value for entry in found] == [False, False]


def test_a_view_is_as_it_was_without_a_page_cache():
    """The view is called as it was, and looks as it was."""

    @page(timeout=60)
    def view(a: int, *, b: str = "x") -> str:
        """Answer."""
        return f"{a}{b}"

    assert view(1, b="y") == "1y"
    assert (view.__name__, view.__doc__) == ("view", "Answer.")
    assert list(inspect.signature(view).parameters) == ["a", "b"]


def test_a_view_of_flask_has_options(cache):
    """Under its route."""
    app, runs = flask.Flask("site"), []

    @app.route("/page")
    @page(timeout=60)
    def view():
        runs.append(1)
        return "page"

    app.wsgi_app = PageCache(app.wsgi_app, cache)
    assert [get(app)[2], get(app)[2], len(runs)] == [b"page", b"page", 1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"timout": 5}, "@page: A page cache has no option 'timout'"),
        ({"timeout": "soon"}, "@page: timeout is 'soon'"),
        ({"vary_on_cookies": ["a"]}, "decides about a page before its view is known"),
    ],
)
def test_a_mistake_at_a_view_is_told(options, told):
    """Where it is written."""
    with pytest.raises(ConfigurationError, match=told):
        page(**options)
