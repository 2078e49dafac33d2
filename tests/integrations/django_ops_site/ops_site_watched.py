"""Tests of those who watch the calls of caches: the debug toolbar, with our panel in it, and Sentry."""

import json
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

import sentry_sdk
from debug_toolbar.store import get_store
from django.conf import settings
from django.core.cache import caches
from django.test import AsyncClient, SimpleTestCase, TransactionTestCase, override_settings
from ops_site_settings import CACHES, SPANS

from storeroom.integrations.django.panel import StoreroomPanel

HERE = "storeroom.integrations.django"
KEPT = ("default", "files", "database", "redis")


def stats_of(response: Any, panel: str = "StoreroomPanel") -> dict[str, Any]:
    """Return the stats that the toolbar has stored of a request, as JSON gives them back."""
    return json.loads(json.dumps(get_store().panel(response.headers["djdt-request-id"], panel)))


def told(stats: dict[str, Any]) -> list[tuple[str, str]]:
    return [(("a" if call["is_async"] else "") + call["method"], call["result"]) for call in stats["calls"]]


class ToolbarTests(TransactionTestCase):
    """The panel of ours, and the toolbar's own."""

    def setUp(self) -> None:
        for alias in KEPT:
            caches[alias].clear()
            caches[alias].invalidate_tags("users", "user:7")
        caches.close_all()

    def test_the_panel_tells_each_call_with_its_outcome(self) -> None:
        """Hits, misses, computed and stale values, tags, and nothing of the values, on every storage."""
        expected = [
            ("get", "miss"), ("get", "miss"), ("set", "stored"), ("get", "hit"), ("get_many", "1 of 2"),
            ("get_or_set", "computed"), ("get_or_set", "hit"), ("invalidate_tags", "removed"), ("has_key", "miss"),
            ("get_or_set", "computed"), ("get_or_set", "stale"),
        ]  # fmt: skip
        for alias in KEPT:
            with self.subTest(alias):
                stats = stats_of(self.client.get(f"/calls/?alias={alias}"))
                assert told(stats) == expected
                (sums,) = stats["aliases"]
                counted = [sums[name] for name in ("calls", "hits", "misses", "stale", "computed", "waited")]
                assert counted == [11, 4, 6, 1, 2, 0]
                assert (sums["near"] > 0) == (alias == "files")
                stored = stats["calls"][2]
                assert (stored["keys"], stored["tags"], stored["alias"]) == (["user:7"], ["users", "user:7"], alias)
                assert "Ada" not in json.dumps(stats)
                assert "ops_site_urls.py" in stored["trace"]

    async def test_the_panel_tells_asynchronous_calls(self) -> None:
        """Those that run at once have an outcome of their own each, and a call that consists of others is one."""
        for alias in KEPT:
            with self.subTest(alias):
                stats = stats_of(await AsyncClient().get(f"/acalls/?alias={alias}"))
                expected = sorted([
                    ("aget", "miss"), ("aset", "stored"), ("aget", "hit"), ("aget_many", "1 of 2"),
                    ("aget_or_set", "computed"), ("aget_or_set", "waited"), ("aget", "hit"), ("aget", "miss"),
                    ("aget_or_set", "hit"),
                ])  # fmt: skip
                assert sorted(told(stats)) == expected
                assert not any("storeroom/integrations/django/" in call["trace"] for call in stats["calls"])

    def test_the_panel_has_its_page(self) -> None:
        """The template shows what is stored; a request without calls has one, too."""
        response = self.client.get("/calls/?alias=files")
        page = self.client.get(
            "/__debug__/render_panel/",
            {"request_id": response.headers["djdt-request-id"], "panel_id": "StoreroomPanel"},
        ).json()["content"]
        assert "user:7" in page
        assert "(near)" in page
        assert "stale" in page
        response = self.client.get("/idle/")
        assert stats_of(response)["total"]["calls"] == 0

    async def test_the_toolbars_own_panel_sees_asynchronous_calls(self) -> None:
        """Each call is told once, as a call of its synchronous twin; hits and misses are counted."""
        for alias in KEPT:
            with self.subTest(alias):
                stats = stats_of(await AsyncClient().get(f"/acalls/?alias={alias}"), "CachePanel")
                called = sorted(call["name"] for call in stats["calls"])
                assert called == ["get"] * 4 + ["get_many"] + ["get_or_set"] * 3 + ["set"]
                assert (stats["hits"], stats["misses"]) == (6, 4)  # a key that is asked for twice counts twice

    def test_nothing_is_told_where_the_toolbar_is_off(self) -> None:
        """Calls outside of a request, or of one without the toolbar, are told to nobody."""
        with mock.patch.object(StoreroomPanel, "note") as note:
            caches["default"].get("absent")
        note.assert_not_called()

    def test_the_panel_without_the_app_is_an_error(self) -> None:
        """The check of the toolbar says which entry INSTALLED_APPS lacks."""
        assert StoreroomPanel.run_checks() == []
        apps = [name for name in settings.INSTALLED_APPS if name != HERE]
        with override_settings(INSTALLED_APPS=apps):
            (error,) = StoreroomPanel.run_checks()
        assert error.id == "storeroom.panel.E001"
        assert error.hint == f"Add {HERE!r} to INSTALLED_APPS."


class SentryTests(SimpleTestCase):
    """Sentry's spans."""

    def spans(self) -> list[tuple[str, list[str], Any]]:
        found = [(span["op"], span["data"]) for span in SPANS if span["op"].startswith("cache.")]
        return [(op, list(data["cache.key"]), data.get("cache.hit")) for op, data in found]

    def setUp(self) -> None:
        caches["redis"].clear()
        caches["default"].clear()
        SPANS.clear()

    def test_get_or_set_has_a_span(self) -> None:
        """It says whether the value was there; with Sentry's own, each call has one."""
        for alias in ("redis", "default"):
            with self.subTest(alias):
                SPANS.clear()
                with sentry_sdk.start_transaction(name="test"):
                    caches[alias].get_or_set("menu", lambda: "made")
                    caches[alias].get_or_set("menu", default="made")
                    caches[alias].get("menu")
                assert self.spans() == [("cache.get", ["menu"], hit) for hit in (False, True, True)]

    async def test_asynchronous_calls_have_one_span_each(self) -> None:
        """On a server, and in memory, whose asynchronous methods Sentry sees in part."""
        for alias in ("redis", "default"):
            with self.subTest(alias):
                SPANS.clear()
                with sentry_sdk.start_transaction(name="test"):
                    cache = caches[alias]
                    await cache.aset("a", 1)
                    await cache.aget("a")
                    await cache.aget("b", "default")
                    await cache.aget_many(["a", "b"])
                    await cache.aset_many({"c": 1})
                    await cache.aget_or_set("d", 5)
                    await cache.aset("e", None)
                assert self.spans() == [
                    ("cache.put", ["a"], None), ("cache.get", ["a"], True), ("cache.get", ["b"], False),
                    ("cache.get", ["a", "b"], True), ("cache.put", ["c"], None), ("cache.get", ["d"], False),
                    ("cache.put", ["e"], None),
                ]  # fmt: skip
        peers = {span["data"].get("network.peer.port") for span in SPANS}
        assert peers <= {None}

    def test_the_server_is_named(self) -> None:
        """As by Sentry's own spans."""
        with sentry_sdk.start_transaction(name="test"):
            caches["redis"].get_or_set("menu", lambda: "made")
        (span,) = [span for span in SPANS if span["op"] == "cache.get"]
        location = urlsplit(CACHES["redis"]["LOCATION"])
        assert span["data"]["network.peer.address"].startswith(f"{location.scheme}://{location.hostname or ''}")
        assert span["data"].get("network.peer.port") == location.port
