"""Flask: the page cache as an extension, its configuration, and pages by endpoint."""

import flask
import pytest
from flask.views import MethodView
from werkzeug.routing import BuildError

import storeroom
from storeroom.exceptions import ConfigurationError
from storeroom.integrations.flask import PageCache, paths_of
from storeroom.pages import Pages, page


def shop(**configuration):
    """Return an application with endpoints of all kinds."""
    app = flask.Flask("shop")
    app.config.update(configuration)
    blueprint = flask.Blueprint("news", "news", url_prefix="/news")

    def view(**arguments):
        return f"{arguments}"

    app.add_url_rule("/items/<int(fixed_digits=4):item_id>/<path:rest>", "item", view)
    app.add_url_rule("/items/<int(fixed_digits=4):item_id>", "item", view)
    app.add_url_rule("/pages/", "paged", view, defaults={"number": 1})
    app.add_url_rule("/pages/<int:number>", "paged", view)
    blueprint.add_url_rule("/ä/<name>", "detail", view)
    app.register_blueprint(blueprint)
    return app


PATHS = ["/items/0007", "/items/0007/a/b c", "/items/0008", "/pages/", "/pages/2", "/news/ä/x?q=1", "/news/ä/a:*"]


@pytest.mark.parametrize(
    ("given", "gone"),
    [
        ({"view": "item", "item_id": 7}, {"/items/0007", "/items/0007/a/b c"}),
        ({"view": "item", "rest": "a/b c"}, {"/items/0007/a/b c"}),
        ({"view": "paged", "number": 1}, {"/pages/"}),
        ({"view": "paged", "number": 2}, {"/pages/2"}),
        ({"view": "paged"}, {"/pages/", "/pages/2"}),
        ({"view": "news.detail", "name": "x"}, {"/news/ä/x?q=1"}),
        ({"view": "news.detail", "name": "a:*"}, {"/news/ä/a:*"}),
    ],
)
def test_pages_go_by_endpoint(alias, given, gone):
    """Arguments are those of url_for(); for each that is left out all pages go. A script needs the rules alone."""
    app = shop(STOREROOM_PAGES_TIMEOUT="5m")
    pages, client = PageCache(app), app.test_client()
    for invalidate in (pages.invalidate, Pages(urls=paths_of(app)).invalidate):
        for path in PATHS:
            assert client.get(path).status_code == 200
        invalidate(**given)
        assert {path for path in PATHS if "age" not in client.get(path).headers} == gone


def test_an_endpoint_that_is_not_there_is_told():
    """Neither all pages go, nor none."""
    paths = paths_of(shop())
    for view, given in (("nothing", {}), ("item", {"pk": 1})):
        with pytest.raises(BuildError):
            paths(view, (), given)
    with pytest.raises(TypeError, match="its arguments have names"):
        paths("item", (7,), {})


def test_paths_begin_with_the_root_of_the_application():
    """As those that url_for() returns outside of a request."""
    app = shop(APPLICATION_ROOT="/a b/")
    assert paths_of(app)("paged", (), {"number": 2}) == ["/a%20b/pages/2"]


@pytest.mark.parametrize("is_class", [False, True], ids=["function", "class"])
def test_an_invalidation_before_the_view_begins_is_seen(alias, is_class):
    """Functions that Flask calls before read data, too: tags have the versions from before them."""
    app, data = flask.Flask("site"), ["old"]

    @app.before_request
    def load():
        flask.g.read = data[0]
        if data[0] == "old":
            data[0] = "new"
            storeroom.caches[alias].invalidate_tags("data")

    class View(MethodView):
        @page(timeout=60, tags=["data"])
        def get(self):
            return flask.g.read

    @page(timeout=60, tags=["data"])
    def view():
        return flask.g.read

    app.add_url_rule("/page", view_func=View.as_view("view") if is_class else view)
    PageCache(app)
    assert [app.test_client().get("/page").text for _ in range(3)] == ["old", "new", "new"]


def test_one_extension_serves_several_applications(alias):
    """The pages are the current application's; outside of any, those of the one that was given last."""
    pages = PageCache(timeout=60)
    with pytest.raises(RuntimeError, match="call init_app"):
        pages.invalidate(url="/pages/")
    first, second = shop(), shop(STOREROOM_PAGES_CACHE_STATUS="Second")
    for app in (first, second):
        pages.init_app(app)
    with pytest.raises(RuntimeError, match="has a page cache already"):
        pages.init_app(first)
    with first.app_context():
        assert pages.pages is first.extensions["storeroom"]
    assert pages.pages is second.extensions["storeroom"]
    assert "Second" in second.test_client().get("/pages/").headers["Cache-Status"]
    with flask.Flask("other").app_context(), pytest.raises(RuntimeError, match="call init_app"):
        pages.invalidate(url="/pages/")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("TIMEUOT", 5, r"app\.config\['STOREROOM_PAGES_TIMEUOT'\]: A page cache has no option 'timeuot'.*timeout"),
        ("TIMEOUT", "soon", r"app\.config\['STOREROOM_PAGES_TIMEOUT'\]: timeout is 'soon'"),
    ],
)
def test_a_mistake_in_the_configuration_names_its_key(name, value, message):
    """It is told when the application is made."""
    with pytest.raises(ConfigurationError, match=message):
        PageCache(shop(**{f"STOREROOM_PAGES_{name}": value}))
