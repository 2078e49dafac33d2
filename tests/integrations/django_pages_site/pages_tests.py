"""The page cache of Django, as middleware and decorator, for sync and async views on WSGI and ASGI."""

import asyncio
import gzip
import tempfile
import threading
import time
from unittest import mock

import pytest
from asgiref.sync import SyncToAsync, iscoroutinefunction
from django.conf import settings
from django.contrib import messages
from django.core import signals
from django.core.cache import caches
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncRequestFactory, RequestFactory, override_settings
from django.urls import NoReverseMatch
from django.utils import timezone, translation
from django.utils.cache import patch_cache_control
from django.views.decorators.http import etag
from pages_clients import COMBINATIONS, OURS, Asgi, PagesTest, Wsgi, everywhere
from pages_urls import site
from rest_framework.response import Response

from storeroom.exceptions import ConfigurationError
from storeroom.integrations import wsgi
from storeroom.integrations.django import pages
from storeroom.pages import page

DATABASE = "storeroom.backends.db.DatabaseCache"


def says(*lines, body=None, status=200):
    """Return a script that answers with these headers; its body tells the number of the run, if none is given."""

    def script(_):
        response = HttpResponse(f"run {len(site.runs)}" if body is None else body, status=status)
        for line in lines:
            name, _, value = line.partition(": ")
            response[name] = value
        return response

    return script


def raises(error):
    def script(_):
        raise error

    return script


class Answers:
    """The answers, wherever the page cache stands."""

    def test_a_page_is_answered_once_it_is_made(self):
        """With its age; browsers are told the lifetime from the beginning."""
        first, second = self.get(), self.get()
        assert [first.text, second.text] == ["run 1", "run 1"]
        assert [first.was_stored, second.was_stored] == [False, True]
        for reply in (first, second):
            assert reply.headers["cache-control"] == "max-age=300"
            assert "expires" in reply.headers
        self.clock.advance(100)
        assert self.get().headers["age"] == "100"
        assert self.get().headers["cache-status"] == "S; hit; ttl=200"

    def test_an_unsafe_method_comes_through(self):
        """And makes the page of its URL absent."""
        assert self.texts(2) == ["run 1", "run 1"]
        site.script = says(body="posted")
        assert self.get("", "DELETE").text == "posted"
        site.script = says()
        assert self.texts(2) == ["run 3", "run 3"]

    def test_head_is_answered_by_the_page(self):
        """Also if it comes first: the view sees a GET."""
        first = self.get("", "HEAD")
        assert (first.status, first.body) == (200, b"")
        assert first.headers["content-length"] == "5"
        assert site.methods == ["GET"]
        assert self.get().text == "run 1"
        assert self.get("", "HEAD").body == b""

    def test_a_condition_that_comes_first_makes_a_whole_page(self):
        """It is answered by 304 all the same."""
        site.script = etag(lambda _: '"a"')(says())
        assert self.get(if_none_match='"a"').status == 304
        assert self.get().text == "run 1"
        assert self.get(if_none_match='"a"').status == 304
        assert len(site.runs) == 1

    def test_errors_are_not_stored(self):
        """They are those of Django, as they were."""
        for error, status in ((Http404(), 404), (PermissionDenied(), 403)):
            site.script = raises(error)
            assert [self.get().status, self.get().status] == [status] * 2
        site.script = says(status=500)
        assert [self.get().status, self.get().status] == [500] * 2
        site.script = says()
        assert self.texts(2) == ["run 7", "run 7"]

    def test_a_stale_page_covers_an_error(self):
        """That of a run, but no answer below 500."""
        self.get()
        self.clock.advance(500)
        site.script = raises(ValueError("broken"))
        assert self.get().text == "run 1"
        self.clock.advance(10)
        site.script = raises(Http404())
        assert self.get().status == 404

    def test_a_stale_page_is_made_anew_in_the_background(self):
        """By a run of the whole of Django, with the signals by which it opens and closes connections."""
        assert self.texts(2) == ["run 1", "run 1"]
        self.clock.advance(310)
        told = []
        for signal in (signals.request_started, signals.request_finished):
            signal.connect(hear := lambda signal, **_: told.append(signal), weak=False)
            self.addCleanup(signal.disconnect, hear)
        assert self.get().text == "run 1"
        self.client.drain()
        assert len(site.runs) == 2
        assert told.count(signals.request_started) == 2
        assert told.count(signals.request_finished) == 2
        assert self.get().text == "run 2"
        assert hasattr(site.runs[1], "session")

    def test_a_refresh_that_fails_leaves_the_stale_page(self):
        """And is tried again later."""
        self.get()
        self.clock.advance(310)
        site.script = raises(ValueError("broken"))
        assert self.get().text == "run 1"
        self.client.drain()
        site.script = says()
        self.clock.advance(10)
        assert self.get().text == "run 1"
        self.client.drain()
        assert self.get().text == "run 3"

    def test_one_run_makes_the_page_for_all_who_ask_at_once(self):
        """Thirty of them."""

        def slow(_):
            if self.client.is_async and self.path.startswith("/a"):

                async def answer():
                    await asyncio.sleep(0.05)
                    return HttpResponse("page")

                return answer()
            time.sleep(0.05)
            return HttpResponse("page")

        site.script = slow
        replies = self.client.get_at_once(self.path, 30)
        assert {reply.text for reply in replies} == {"page"}
        assert len(site.runs) == 1

    def test_a_stream_passes_through(self):
        """It is not stored, nor held back."""

        async def chunks():
            yield b"a"
            yield b"b"

        site.script = lambda _: StreamingHttpResponse(chunks() if self.client.is_async else [b"a", b"b"])
        assert [self.get().text, self.get().text] == ["ab", "ab"]
        assert len(site.runs) == 2

    def test_a_template_is_stored_rendered(self):
        """With what other middlewares add."""
        template = engines["django"].from_string("{{ number }} {{ menu }}")
        site.script = lambda request: TemplateResponse(request, template, {"number": len(site.runs)})
        assert self.texts(2) == ["1 ", "1 "]
        with self.settings(MIDDLEWARE=[*self.middleware(), "pages_urls.MenuMiddleware"]):
            self.client.end()
            self.client.open()
            caches["default"].clear()
            assert self.texts(2) == ["2 the menu", "2 the menu"]

    def test_pages_go_by_the_name_of_their_view(self):
        """By their path and their tags, too."""
        path = "/news/7/" if not self.in_middleware else "/news/7/x/"
        which = {"view": "news:detail", "pk": 7} if not self.in_middleware else {"view": "news:part", "args": [7, "x"]}
        for number, how in enumerate([which, {"view": which["view"]}, {"url": path}, {"prefix": "/news/"}], 1):
            assert [self.get(path).text, self.get(path).text] == [f"run {number}"] * 2
            pages.invalidate(**how)
        assert self.get(path).text == "run 5"
        pages.invalidate(view=which["view"], pk=8)
        asyncio.run(pages.ainvalidate(url="http://example.com/other/"))
        assert self.get(path).text == "run 5"

    def test_a_page_goes_by_its_url(self):
        """At one host."""
        self.get()
        pages.invalidate(url=f"http://example.com{self.path}")
        assert self.get().text == "run 2"


class Leaks:
    """Nobody is shown another's page, wherever the page cache stands."""

    def assert_not_stored(self, script, **headers):
        site.script = script
        before = len(site.runs)
        for _ in range(3):
            assert not self.get(**headers).was_stored
        assert len(site.runs) == before + 3

    def test_a_cookie_that_is_set_is_nobody_elses(self):
        """RFC 9111 §7.3."""

        def sets(_):
            response = HttpResponse("page")
            response.set_cookie("a", "b")
            return response

        self.assert_not_stored(sets)

    def test_a_session_that_is_written_is_nobody_elses(self):
        """Though its cookie is set by a middleware that is yet to come."""

        def logs_in(request):
            request.session["user"] = "alice"
            return HttpResponse("alice")

        self.assert_not_stored(logs_in)

    def test_a_page_of_a_session_is_its_own(self):
        """Though nothing says so before a middleware that is yet to come."""
        site.script = lambda request: HttpResponse(request.session.get("user", "nobody"))
        keys = {user: self.session_of(user) for user in ("alice", "bob")}
        for _ in range(2):
            for user, key in keys.items():
                assert self.get(cookie=f"sessionid={key}").text == user
            assert self.get().text == "nobody"
        assert len(site.runs) == 3

    def session_of(self, user):
        from django.contrib.sessions.backends.cache import SessionStore  # needs the settings

        session = SessionStore()
        session["user"] = user
        session.save()
        return session.session_key

    def test_a_page_without_a_session_is_for_those_with_one_too(self):
        """Django says ``Vary: Cookie`` where a page depends on its own cookies."""
        assert self.get().text == "run 1"
        assert self.get(cookie="sessionid=abc; csrftoken=x").text == "run 1"

    def test_a_cookie_that_nobody_has_named_gets_no_page_of_others(self):
        """Neither is its page kept, nor is it given one."""
        site.script = lambda request: HttpResponse(request.COOKIES.get("theme", "light"))
        assert self.get(cookie="theme=dark").text == "dark"
        assert [self.get().text, self.get(cookie="theme=dark").text] == ["light", "dark"]

    def test_a_token_is_nobody_elses(self):
        """Neither in a form, nor under another name, nor one that was there already."""
        for template in ("<form>{% csrf_token %}</form>", "{{ csrf_token }}"):
            rendered = engines["django"].from_string(template)
            self.assert_not_stored(lambda request, rendered=rendered: HttpResponse(rendered.render({}, request)))
        self.assert_not_stored(lambda request: HttpResponse(get_token(request)), cookie=f"csrftoken={'a' * 32}")

    def test_a_message_is_shown_once(self):
        """Neither the page that has it, nor the one that adds it, is kept."""

        def shows(request):
            return HttpResponse(",".join(map(str, messages.get_messages(request))))

        def adds(request):
            messages.info(request, "saved")
            return HttpResponse("page")

        self.assert_not_stored(adds)
        self.assert_not_stored(shows)

    def test_languages_are_told_apart(self):
        """By header and by cookie."""
        site.script = lambda _: HttpResponse(translation.get_language())
        for number in range(3):
            before = len(site.runs)
            for language in ("de", "en", "fr"):
                assert self.get(accept_language=language).text == language
                assert self.get(cookie=f"django_language={language}").text == language
            assert self.get().text == "en"
            assert self.get(cookie="django_language=fr", accept_language="de").text == "fr"
            assert number < 2 or len(site.runs) == before

    def test_a_language_that_a_view_has_chosen_is_nobody_elses(self):
        """Nothing tells by what it was chosen."""

        def chooses(_):
            translation.activate("fr")
            return HttpResponse("bonjour")

        self.assert_not_stored(chooses)

    def test_time_zones_are_told_apart(self):
        """Those that a middleware activates by a cookie."""
        site.script = lambda _: HttpResponse(timezone.get_current_timezone_name())
        for _ in range(2):
            assert self.get(cookie="zone=Asia/Tokyo").text == "Asia/Tokyo"
            assert self.get().text == "UTC"

    def test_a_time_zone_that_nothing_tells_is_nobody_elses(self):
        """Though the page says that it is fresh."""

        def script(request):
            return says("Cache-Control: max-age=60", body=timezone.get_current_timezone_name())(request)

        site.script = script
        assert self.get(cookie="zone=Asia/Tokyo").text == "Asia/Tokyo"
        assert self.get().text == "UTC"

    def test_a_host_that_is_not_allowed_has_no_pages(self):
        """Its answer is Django's."""
        assert self.get(host="evil.com").status == 400
        assert self.get().status == 200
        assert self.get(host="evil.com").status == 400

    def test_a_page_that_says_so_is_not_stored(self):
        """By a header of the response."""
        for header in ("Vary: *", "Cache-Control: private", "Cache-Control: no-store"):
            self.assert_not_stored(says(header))

        def marks(request):
            request._cache_update_cache = False  # as packages tell Django's own
            return HttpResponse("page")

        self.assert_not_stored(marks)

    def test_a_page_for_a_password_is_his(self):
        """Nor does he get the page of those without (RFC 9111 §3.5)."""
        site.script = lambda request: HttpResponse(request.headers.get("authorization", "nobody"))
        assert self.get(authorization="alice").text == "alice"
        assert [self.get().text, self.get(authorization="bob").text] == ["nobody", "bob"]

    def test_paths_and_queries_are_told_apart(self):
        """The order of parameters counts."""
        site.script = lambda request: HttpResponse(request.get_full_path())
        for path in (self.path, f"{self.path}?a=1", f"{self.path}?a=1&a=2", f"{self.path}?a=2&a=1"):
            assert [self.get(path).text, self.get(path).text] == [path] * 2


everywhere(globals(), Answers, Leaks)


class OfServers(PagesTest):
    """A storage that is asked by several steps, and is awaited: SQLite, here."""

    path, in_middleware = "/plain/", True

    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        database = {"BACKEND": DATABASE, "LOCATION": "t", "OPTIONS": {"url": f"sqlite:///{folder}/pages.sqlite3"}}
        self.enterContext(self.settings(CACHES={**settings.CACHES, "default": database}))
        super().setUp()

    def test_pages_are_kept_and_invalidated(self):
        """By one run for all, variants included."""
        site.script = says("Vary: Accept-Language")
        assert {reply.text for reply in self.client.get_at_once(self.path, 10)} == {"run 1"}
        for number in (2, 3):
            assert self.get(accept_language="de").text == f"run {number}" == self.get(accept_language="de").text
            pages.invalidate(prefix="/")
        self.get()
        self.clock.advance(310)
        assert self.get().text == "run 4"
        self.client.drain()
        assert self.get().text == "run 5"


class OfServersAsync(OfServers):
    """The same, awaited."""

    path, server = "/aplain/", Asgi


class MiddlewareTests(PagesTest):
    """The page cache of the site."""

    path, in_middleware = COMBINATIONS["WsgiMiddleware"]["path"], True

    def test_a_hit_comes_before_everything_else(self):
        """No other middleware is asked, no URL is resolved."""
        self.texts(3)
        assert site.seen == [self.path]

    def test_a_host_that_nobody_checks_fills_no_storage(self):
        """Without Django's CommonMiddleware any host comes to the view."""
        with self.settings(MIDDLEWARE=[OURS]):
            self.client.open()
            assert [self.get(host="evil.com").text for _ in range(2)] == ["run 1", "run 2"]

    def test_the_words_of_a_page_count(self):
        """Before CACHE_MIDDLEWARE_SECONDS."""
        site.script = says("Cache-Control: max-age=10")
        assert self.texts(2) == ["run 1", "run 1"]
        self.clock.advance(100)
        assert self.get().text == "run 2"
        assert [self.get("/never/").text, self.get("/never/").text] == ["run 3", "run 4"]

    def test_both_page_caches_keep_pages_of_their_own(self):
        """The decorator's page lacks the headers of the middlewares: those of languages, here."""
        with self.settings(MIDDLEWARE=self.middleware()[1:]):
            other = Wsgi()
            other.open()
            assert other.get("/view/", accept_language="de").text == "run 1"
        assert self.get("/view/", accept_language="de").text == "run 1"
        assert "Accept-Language" in self.get("/view/", accept_language="de").headers["vary"]
        self.clock.advance(310)
        self.get("/view/", accept_language="de")
        self.client.drain()

    def test_the_page_cache_around_django_is_asked_first(self):
        """Both have the same keys: one makes the page, the other lets it."""
        outer = wsgi.PageCache(self.client.handler, "default", timeout=300)
        self.client.handler = outer
        misses = caches["default"].stats().misses
        assert self.texts(2) == ["run 1", "run 1"]
        assert caches["default"].stats().misses == misses + 1
        self.client.handler = outer.app
        assert self.texts(2) == ["run 1", "run 1"]

    def test_pages_of_all_languages_go_by_the_name_of_a_view(self):
        """Where a language is part of the path."""
        paths = ["/en/about/", "/de/about/", "/fr/about/?a=1"]
        before = [self.get(path).text for path in paths]
        assert [self.get(path).text for path in paths] == before
        pages.invalidate(view="about")
        assert [self.get(path).text for path in paths] == ["run 4", "run 5", "run 6"]
        with pytest.raises(NoReverseMatch):
            pages.invalidate(view="news:nothing", pk=7)
        with pytest.raises(NoReverseMatch):
            pages.invalidate(view="nowhere:detail")

    def test_settings_are_those_of_djangos_own(self):
        """The alias, the time and the prefix."""
        with self.settings(
            CACHE_MIDDLEWARE_ALIAS="other", CACHE_MIDDLEWARE_KEY_PREFIX="p", CACHE_MIDDLEWARE_SECONDS=5,
            MIDDLEWARE=self.middleware(),
        ):  # fmt: skip
            self.client.open()
            assert self.texts(2) == ["run 1", "run 1"]
            assert any("page:p " in key for key in caches["other"].keys())  # noqa: SIM118 -- no dict
            pages.invalidate(url="http://example.com/plain/")
            assert self.texts(2) == ["run 2", "run 2"]

    @override_settings(STOREROOM_PAGES={"timout": 5})
    def test_mistakes_are_told(self):
        """When the middleware is made."""
        for options, told in (
            ({"STOREROOM_PAGES": {"timout": 5}}, "no option 'timout'"),
            ({"STOREROOM_PAGES": "5m"}, "STOREROOM_PAGES is '5m'"),
            ({"CACHE_MIDDLEWARE_ALIAS": "djangos"}, "cannot keep pages"),
        ):
            with self.settings(**options), self.assertRaisesMessage(ConfigurationError, told):
                pages.CacheMiddleware(lambda _: None)
        with self.assertRaisesMessage(ConfigurationError, "cache_page(): A page cache has no option 'vary'"):
            pages.cache_page(5, vary=["a"])

    def test_a_view_may_have_options_of_its_own(self):
        """By the mark that all page caches know."""
        site.script = page(timeout=5, tags=["marked"])(says())
        assert self.texts(2) == ["run 1"] * 2
        pages.invalidate(tags=["marked"])
        assert self.texts(2) == ["run 2"] * 2
        self.clock.advance(70)
        assert self.get().text == "run 3"

    def test_a_host_that_a_proxy_tells_is_that_of_the_page(self):
        """Where Django is told to believe it; its URL is the one to invalidate."""
        with self.settings(USE_X_FORWARDED_HOST=True, ALLOWED_HOSTS=["*"], STOREROOM_PAGES={}):
            site.script = lambda request: HttpResponse(request.get_host())
            for _ in range(2):
                assert [self.get(x_forwarded_host=host).text for host in ("a.com", "b.com")] == ["a.com", "b.com"]
            pages.invalidate(url="http://a.com/plain/")
            self.get(x_forwarded_host="b.com")
            assert len(site.runs) == 2
            self.get(x_forwarded_host="a.com")
            assert len(site.runs) == 3

    def test_a_page_may_be_kept_compressed(self):
        """And is sent so to those who accept it; all are told."""
        with self.settings(STOREROOM_PAGES={"compress": "gzip"}):
            self.client.open()
            site.script = says(body="page " * 500)
            first, second = self.get(), self.get(accept_encoding="gzip")
            assert first.text == gzip.decompress(second.body).decode() == self.get().text
            assert "accept-encoding" in first.headers["vary"].lower()
            assert (second.headers["content-encoding"], len(site.runs)) == ("gzip", 1)

    def test_nothing_leaves_the_thread_of_the_loop(self):
        """A hit and a miss of an async view are awaited, and no more."""

        async def aview(_):
            return HttpResponse("page")

        async def asked():
            middleware = pages.CacheMiddleware(pages.cache_page(5)(aview))
            with mock.patch.object(SyncToAsync, "__call__", side_effect=AssertionError):
                assert iscoroutinefunction(middleware)
                return [(await middleware(AsyncRequestFactory().get("/x/"))).content for _ in range(2)]

        assert asyncio.run(asked()) == [b"page"] * 2


class DecoratorTests(PagesTest):
    """The page cache of a view."""

    path, in_middleware = COMBINATIONS["WsgiDecorator"]["path"], False

    def test_its_time_counts_before_that_of_the_response(self):
        """As with Django's own; browsers are told theirs, from when they ask."""

        def script(_):
            response = HttpResponse("page")
            patch_cache_control(response, max_age=10, public=True)
            return response

        site.script = script
        self.get()
        self.clock.advance(200)
        reply = self.get()
        assert (len(site.runs), reply.headers["cache-control"]) == (1, "max-age=10, public")
        assert not reply.was_stored  # an age would take from their ten seconds

    def test_a_browser_may_be_told_another_time(self):
        """A page that is invalidated does not live on there."""
        view = pages.cache_page(300, browser_timeout=0)(site.answer)
        for _ in range(2):
            assert view(RequestFactory().get("/x/"))["Cache-Control"] == "max-age=0"

    def test_a_page_goes_by_tags_of_djangos_request(self):
        """The function is given the request that the view is given."""
        assert self.texts(2) == ["run 1"] * 2
        pages.invalidate(tags=["tag:view/"])
        assert self.texts(2) == ["run 2"] * 2

    def test_prefix_and_alias_keep_pages_apart(self):
        """A prefix of paths is one in each alias."""
        assert [self.get("/prefixed/").text, self.get("/prefixed/").text] == ["run 1"] * 2
        pages.invalidate(prefix="/prefixed/")
        assert self.get("/prefixed/").text == "run 1"
        pages.invalidate(prefix="/prefixed/", cache="other")
        assert self.get("/prefixed/").text == "run 2"

    def test_answers_of_rest_framework_are_stored_rendered(self):
        """Those of a method, which are rendered later, and those of a whole view."""
        for path in ("/api/", "/api/whole/"):
            site.begin()
            site.script = lambda _: Response({"run": len(site.runs)})
            replies = [self.get(path, accept="application/json") for _ in range(2)]
            assert [reply.text for reply in replies] == ['{"run":1}'] * 2
            assert [reply.headers["cache-control"] for reply in replies] == ["max-age=300"] * 2
            assert "text/html" in self.get(path, accept="text/html").headers["content-type"]
            self.clock.advance(310)
            assert self.get(path, accept="application/json").text == '{"run":1}'
            self.client.drain()
            assert self.get(path, accept="application/json").text == '{"run":3}'

    def test_a_view_is_as_it_was(self):
        """Its name, and whether it is a coroutine function; what is no request is told."""
        assert pages.cache_page(5)(PagesTest.setUp).__name__ == "setUp"
        with self.assertRaisesMessage(TypeError, "in place of a request"):
            pages.cache_page(5)(site.answer)(object())

    def test_threads_have_caches_of_their_own(self):
        """As Django gives them."""
        found = []
        for _ in range(2):
            thread = threading.Thread(target=lambda: found.append(self.get().text))
            thread.start()
            thread.join()
        assert found == ["run 1"] * 2
