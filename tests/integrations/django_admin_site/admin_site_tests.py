"""The admin's pages by Django's client, and the points of their charts."""

import io
import os
import re
import subprocess
import sys
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.core.cache import cache, caches
from django.core.management import call_command
from django.test import Client, TestCase
from django.urls import reverse
from django.utils.html import escape

from storeroom.engines import background
from storeroom.integrations.django import history
from storeroom.integrations.django.entries import shown
from storeroom.testing import FakeClock

SCRIPT = "<script>document.title = 'taken over'</script>"
SESSION = "django.contrib.sessions.cached_db"


def user(name: str, *permissions: str, **fields: Any) -> User:
    fields.setdefault("is_staff", True)
    made = User.objects.create_user(name, password="secret", **fields)
    made.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return made


def url(page: str, alias: str = "default", site: str = "admin", **query: Any) -> str:
    args = [] if page == "changelist" else [quote(alias)]
    found = reverse(f"{site}:storeroom_cache_{page}", args=args)
    return f"{found}?{urlencode(query)}" if query else found


class Pages(TestCase):
    """Pages by Django's client."""

    @classmethod
    def setUpTestData(cls) -> None:
        cls.users = {
            "reader": user("reader", "view_cache"),
            "writer": user("writer", "view_cache", "change_cache"),
            "staff": user("staff", "view_user"),
            "visitor": user("visitor", "view_cache", "change_cache", is_staff=False),
            "root": user("root", is_superuser=True),
        }

    def setUp(self) -> None:
        for alias in ("default", "pages", "shared", "odd/<b>"):
            caches[alias].clear()

    def of(self, name: str) -> Client:
        client = Client()
        client.force_login(self.users[name])
        return client

    def page(self, name: str, address: str, status: int = 200) -> str:
        response = self.of(name).get(address)
        assert response.status_code == status, (response.status_code, response.content[-2000:])
        return response.content.decode()

    ADDRESSES = (
        url("changelist"), url("change"), url("keys"), url("entry", key="k"), url("history"), url("clear"),
    )  # fmt: skip
    CHANGES = (url("delete_entry", key="k"), url("invalidate", tag="t"), url("clear"))

    def test_anonymous_and_non_staff_are_sent_to_the_login(self) -> None:
        """Nobody but staff sees a page, whatever permissions a user has."""
        for client in (Client(), self.of("visitor")):
            for address in self.ADDRESSES:
                response = client.get(address)
                assert response.status_code == 302, address
                assert response["Location"].startswith("/admin/login/")
            for address in self.CHANGES:
                assert client.post(address)["Location"].startswith("/admin/login/")

    def test_staff_without_the_permission_is_refused(self) -> None:
        """Pages ask for view_cache, and changes for change_cache; nothing is done for others."""
        cache.set("k", 1, tags=["t"])
        for address in self.ADDRESSES:
            self.page("staff", address, status=403)
        for name in ("staff", "reader"):
            for address in self.CHANGES:
                assert self.of(name).post(address).status_code == 403
        assert cache.get("k") == 1
        assert "Caches" not in self.page("staff", "/admin/")
        assert "Caches" in self.page("reader", "/admin/")
        self.page("reader", url("clear"), status=403)
        assert "Delete" not in self.page("reader", url("entry", key="k"))
        assert "Clear…" not in self.page("reader", url("change"))
        assert not LogEntry.objects.exists()

    def test_changes_are_made_by_post_with_a_token_alone(self) -> None:
        """A link or an image changes nothing, and neither does a form of another site."""
        cache.set("k", 1, tags=["t"])
        for address in self.CHANGES[:2]:
            assert self.of("root").get(address).status_code == 405
        assert "Yes, clear it" in self.page("root", self.CHANGES[2])
        client = Client(enforce_csrf_checks=True)
        client.force_login(self.users["root"])
        for address in self.CHANGES:
            assert client.post(address).status_code == 403
        assert cache.get("k") == 1

    def test_the_list_has_every_alias_with_its_numbers_or_a_reason(self) -> None:
        """A server out of reach, and a class of Django's own, are told in their rows; a password is not."""
        caches["pages"].get_or_set("page:1", lambda: "html")
        caches["pages"].get_or_set("page:1", lambda: "html")
        text = self.page("reader", url("changelist"))
        for alias in settings.CACHES:
            assert f"{escape(alias)}</a>" in text or alias == "foreign", alias
        assert "the whole machine" in text
        assert "1 process<" in text
        assert f"process {os.getpid()} alone" in text
        assert "none of Storeroom&#x27;s" in text
        assert f"127.0.0.1:{os.environ['SITE_PORT']}" in text
        assert "hunter2" not in text
        assert "hunter2" not in self.page("reader", url("change", "down"))

    def test_an_unknown_alias_and_one_of_django_have_no_page(self) -> None:
        """They are not found, and neither is a version that is no number."""
        self.page("reader", url("change", "nobody"), status=404)
        self.page("reader", url("change", "foreign"), status=404)
        self.page("reader", url("entry", key="k", version="x"), status=404)

    def test_a_name_of_any_text_is_escaped(self) -> None:
        """An alias and a tag with markup and a slash in them stand on each page as they are, in pictures, too."""
        for number in range(40):
            caches["odd/<b>"].get_or_set(f"k:{number % 20}", lambda: 1, tags=["<b>"])
        history.note_all([caches["odd/<b>"]])
        for page in ("changelist", "change", "keys", "clear", "history", "entry"):
            text = self.page("root", url(page, "odd/<b>", **({"key": "k:1"} if page == "entry" else {})))
            assert "odd/&lt;b&gt;" in text, page
            assert "<b>" not in text, page
        assert self.of("root").post(url("clear", "odd/<b>"))["Location"] == url("change", "odd/<b>")

    def test_a_search_finds_keys_by_beginning_pattern_family_and_version(self) -> None:
        """The keys link to their entries; a storage that lists none says why."""
        caches["pages"].set_many({"user:1": 1, "user:22": 2, "page:1": 3, "user": 4})
        caches["pages"].set("user:9", 1, version=5)
        for query, keys in [
            ({"q": "user:"}, ["user:1", "user:22"]),
            ({"q": "*:?"}, ["page:1", "user:1"]),
            ({"family": "user"}, ["user", "user:1", "user:22"]),
            ({"q": "user:2", "family": "user"}, ["user:22"]),
            ({"q": "user", "version": 5}, ["user:9"]),
            ({"q": "nothing"}, []),
        ]:
            text = self.page("reader", url("keys", "pages", **query))
            assert re.findall(r"entry/\?key=[^\"]*\">([^<]*)<", text) == keys, query
            assert f"{len(keys)} key" in text
        assert "turn storage keys back" in self.page("reader", url("keys", "hashed"))

    def test_a_search_knows_the_families_of_the_alias(self) -> None:
        """Keys of a family that OPTIONS["families"] names are found by its name."""
        caches["shared"].set_many({"user:1:name": 1, "user:1": 2, "user:1:age": 3})
        for family, key in (("user:*:name", "user:1:name"), ("user:?", "user:1"), ("user", "user:1:age")):
            text = self.page("reader", url("keys", "shared", family=family))
            assert re.findall(r"entry/\?key=[^\"]*\">([^<]*)<", text) == [key]

    def test_a_search_shows_few_of_many(self) -> None:
        """A page holds the first keys, and the number of all."""
        caches["pages"].set_many({f"row:{number:03}": 1 for number in range(250)})
        text = self.page("reader", url("keys", "pages", q="row:"))
        assert "250 keys; the first 200 are shown" in text
        assert "row:199<" in text
        assert "row:200<" not in text

    def test_keys_of_sessions_are_for_superusers(self) -> None:
        """A session's key is all that is needed to take it over: others do not see, count or find it in the log."""
        key = f"{SESSION}{'a1b2' * 8}"
        cache.set(key, {})
        for query in ({"q": ""}, {"q": SESSION}, {"q": f"{SESSION}a*"}, {"family": "django.contrib.sessions.cached_*"}):
            text = self.page("reader", url("keys", **query))
            assert "a1b2a1b2" not in text
            assert "0 keys" in text
        assert "a1b2a1b2" in self.page("root", url("keys", q=SESSION))
        cache.set(f"{SESSION}{'abcd' * 8}", {})  # without a digit it is a family of its own
        assert "abcdabcd" not in self.page("reader", url("change"))
        assert "abcdabcd" in self.page("root", url("change"))
        self.of("root").post(url("delete_entry", key=key))
        assert cache.get(key) is None
        assert "a1b2" not in LogEntry.objects.get().change_message

    def test_an_entry_is_told_and_its_value_to_superusers(self) -> None:
        """Age, timeout, size, type and tags are for all who may look; the value is escaped, and for superusers."""
        cache.set("user:7", {"name": SCRIPT}, 300, tags=["users", "team <b>"])
        before = cache.stats()
        text = self.page("reader", url("entry", key="user:7"))
        assert re.search(r"Timeout left</th><td>[12]\d\d s|300 s", text)
        assert re.search(r"Size</th><td>\d+ bytes", text)
        assert "Type</th><td>dict" in text
        assert re.search(r"Age</th><td>\d", text)
        assert "<strong>users</strong>, holds" in text
        assert "team &lt;b&gt;" in text
        assert "taken over" not in text
        told = self.page("root", url("entry", key="user:7"))
        assert "&lt;script&gt;document.title" in told
        assert SCRIPT not in told
        assert cache.stats().hits == before.hits
        cache.invalidate_tags("users")
        outdated = self.page("root", url("entry", key="user:7"))
        assert "<strong>users</strong>, does not hold any more" in outdated
        assert "taken over" not in outdated

    def test_an_entry_that_is_not_there_says_why(self) -> None:
        """The reason of explain() is told, of a server out of reach, too."""
        assert "clear() removed all entries" in self.page("root", url("entry", key="nothing"))
        assert "The server is down" in self.page("root", url("entry", "down", key="nothing"))
        assert "keeps no entries" in self.page("root", url("entry", "nothing", key="nothing"))

    def test_any_key_and_any_value_has_a_page(self) -> None:
        """Markup, lines, NUL and a lone surrogate in keys; a value whose repr() fails, and very long ones."""
        for key in ("<b>&amp;", "two\r\nlines", "nul\x00", "ü/?#&%20+", " "):
            cache.set(key, [key])
            listed = self.page("root", url("keys"))
            assert url("entry", key=key, version=1).replace("&", "&amp;") in listed
            assert "Type</th><td>list" in self.page("root", url("entry", key=key))
            assert self.of("root").post(url("delete_entry", key=key)).status_code == 302
            assert cache.get(key) is None, key
        cache.set("lone\ud800", 1)
        assert "<li>lone\\ud800</li>" in self.page("root", url("keys"))
        for value in (Unshown(), "x" * 1_000_000, list(range(100_000)), b"\xff" * 100_000):
            cache.set("k", value)
            assert len(self.page("root", url("entry", key="k"))) < 200_000
        assert shown("tab\t") == "tab\\t"

    def test_deleting_invalidating_and_clearing_are_logged(self) -> None:
        """Each change stands in the log of the alias, with the user; a change of nothing does not."""
        shared, writer = caches["shared"], self.of("writer")
        shared.set_many({"a": 1, "b": 2})
        shared.set("c", 3, tags=["t"])
        shared.set("a", 4, version=2)
        there = writer.post(url("delete_entry", "shared", key="a"), follow=True)
        assert "Deleted the entry" in there.content.decode()
        assert "There is no entry" in writer.post(url("delete_entry", "shared", key="a"), follow=True).content.decode()
        writer.post(url("delete_entry", "shared", key="a", version=2))
        assert shared.get("a", version=2) is None
        writer.post(url("invalidate", "shared"), {"tag": "t"})
        assert "Name a tag" in writer.post(url("invalidate", "shared"), {"tag": ""}, follow=True).content.decode()
        assert (shared.get("a"), shared.get("b"), shared.get("c")) == (None, 2, None)
        writer.post(url("clear", "shared"))
        assert shared.get("b") is None
        entries = list(LogEntry.objects.order_by("pk"))
        assert [entry.get_change_message() for entry in entries] == [
            'Deleted the entry "a".',
            'Deleted the entry "a" of version 2.',
            'Invalidated the tag "t".',
            "Cleared the cache.",
        ]
        assert {(entry.user.username, entry.object_id, entry.content_type.model) for entry in entries} == {
            ("writer", "shared", "cache")
        }
        assert entries[0].get_admin_url() == "/admin/storeroom/cache/shared/change/"
        assert "Invalidated the tag" in self.page("reader", url("history", "shared"))

    def test_a_server_that_several_aliases_share(self) -> None:
        """A search lists, and clearing removes, the alias's own entries alone: also where its own clear() does more."""
        caches["other"].set("user:1", "kept", tags=["t"])
        caches["redis"].set_many({"user:1": 1, "user:2": 2})
        assert "2 keys" in self.page("root", url("keys", "redis", q="user:"))
        text = self.page("root", url("entry", "other", key="user:1"))
        assert "In near</th>" in text
        assert "&#x27;kept&#x27;</pre>" in text
        assert "<strong>t</strong>, holds" in text
        self.of("root").post(url("clear", "redis"))
        assert (caches["redis"].get("user:2"), caches["other"].get("user:1")) == (None, "kept")
        assert "1 process<" in self.page("root", url("change", "other"))

    def test_a_change_that_fails_is_told_and_not_logged(self) -> None:
        """An outage is no success, though the cache's own policy would pass over it."""
        for address in (url("clear", "down"), url("delete_entry", "down", key="k"), url("invalidate", "down", tag="t")):
            text = self.of("root").post(address, follow=True).content.decode()
            assert 'class="error"' in text
        assert not LogEntry.objects.exists()

    def test_another_site_has_the_pages_under_its_own_name(self) -> None:
        """No link of a page leads to the default site."""
        text = self.page("root", url("change", site="own"))
        assert 'href="/own/storeroom/cache/default/clear/"' in text
        assert 'href="/own/storeroom/cache/"' in text
        assert 'href="/admin/' not in text
        assert self.of("root").post(url("clear", site="own"))["Location"] == "/own/storeroom/cache/default/change/"

    def test_advice_is_shown_where_it_is_asked_for(self) -> None:
        """The alias that records its traffic has a section; others have none."""
        for number in range(300):
            cache.get_or_set(f"page:{number % 100}", lambda: "html")
        text = self.page("reader", url("change"))
        assert 'id="storeroom-advice"' in text
        assert "Hit ratio by MAX_ENTRIES" in text
        assert 'id="storeroom-advice"' not in self.page("reader", url("change", "pages"))

    def test_the_app_adds_no_table_and_reads_none(self) -> None:
        """Commands that read all models pass by the one without a table."""
        out = io.StringIO()
        call_command("dumpdata", "storeroom", "--all", stdout=out)
        call_command("dumpdata", "storeroom", stdout=out)
        call_command("makemigrations", "--check", "--dry-run", stdout=out)
        assert "[][]" in out.getvalue().replace("\n", "")


class Unshown:
    """A value that Python cannot show."""

    def __repr__(self) -> str:
        raise ValueError("no")


class Courses(TestCase):
    """The counts over time."""

    def visit(self, alias: str, reads: int) -> None:
        for number in range(reads):
            caches[alias].get_or_set(f"page:{number % 4}", lambda: "html")

    def note_points(self, cache: Any, clock: FakeClock) -> None:
        """Note three points, of eight reads each, a minute apart."""
        for _ in range(3):
            self.visit("default", 8)
            history.note_all([cache])
            clock.advance(60)

    def test_points_of_all_processes_lie_in_the_storage(self) -> None:
        """Another worker, which has none of its own, shows them; and no listing, bound or clear() knows them."""
        for alias in ("pages", "shared"):
            with FakeClock() as clock:
                this = caches[alias]
                clock.advance("2d")  # beyond the points of other tests
                for _ in range(5):
                    self.visit(alias, 8)
                    history.note_all([this])
                    clock.advance(60)
                this.clear()
                assert this.keys() == []
                history._own.clear()
                intervals = history.history(this, history.counted(this))
                assert [each.hits + each.misses for each in intervals] == [8, 8, 8, 8, 0]
                assert len(history.history(this, history.counted(this))) == 6 - 1

    def test_another_process_is_in_the_course(self) -> None:
        """The reads of a worker that has ended, and the points that it has noted, are shown by this one."""
        worker = """
import django
django.setup()
from django.core.cache import caches
from storeroom.integrations.django import history
from storeroom.testing import FakeClock
with FakeClock() as clock:
    for _ in range(3):
        caches["shared"].get_or_set("page:1", int)
        history.note_all([caches["shared"]])
        clock.advance(60)
"""
        with FakeClock() as clock:
            caches["shared"].clear()
            before = history.counted(caches["shared"])
            subprocess.run([sys.executable, "-W", "error", "-c", worker], check=True)
            clock.advance(200)
            after = history.counted(caches["shared"])
            assert (after.processes, after.hits - before.hits) == ((before.processes or 0) + 1, 2)
            assert sum(each.hits for each in history.history(caches["shared"], after)) >= 2

    def test_points_of_one_process_stay_in_its_memory(self) -> None:
        """Local memory counts for the process, and so do its points."""
        history._own.clear()
        with FakeClock() as clock:
            self.note_points(cache, clock)
            intervals = history.history(cache, history.counted(cache))
        assert [each.hits + each.misses for each in intervals] == [8, 8, 0]
        assert list(history._own) == [cache.engine]

    def test_counts_that_fall_leave_a_gap(self) -> None:
        """Where counts have begun anew, or a process is not counted any more, no growth is told."""
        points = [history.Point(60.0 * number, hits, 0, hits, 0.5) for number, hits in enumerate((0, 10, 4, 6))]
        assert [(each.begin, each.hits, each.saved) for each in history._intervals(points)] == [
            (0.0, 10, 5.0),
            (120.0, 2, 1.0),
        ]

    def test_points_become_rarer_with_age_and_end_after_a_day(self) -> None:
        """The last hour has one each minute, the day before one each ten minutes."""
        points: list[history.Point] = []
        for minute in range(3 * 1440):
            now = 1e9 + 60.0 * minute
            points = history.thinned([*points, history.Point(now, 0, 0, 0, 0.0)], now)
        ages = [now - point.at for point in points]
        assert len([age for age in ages if age <= 3600]) == 61
        assert 136 <= len([age for age in ages if age > 3600]) <= 140
        assert max(ages) <= 86_400

    def test_an_entry_of_others_is_no_course(self) -> None:
        """Anything in place of the points counts as none."""
        for found in (
            None,
            "text",
            [1],
            [[1, 2]],
            [["a"] * 5],
            [[1, 2, 3, 4, float("nan")]],
            [[10**400] * 5],
            {"at": 1},
        ):
            assert history._read(found) == []

    def test_requests_note_points_each_minute(self) -> None:
        """A request that comes when it is due has its caches noted in the background, and the next one does not."""
        self.addCleanup(history._own.clear)
        history._own.clear()
        history._Clock.due = 0.0
        caches["odd/<b>"].get("k")
        Client().get("/admin/login/")
        assert background.drain()
        assert caches["odd/<b>"].engine in history._own
        history._own.clear()
        Client().get("/admin/login/")
        assert background.drain()
        assert not history._own

    def test_the_chart_is_markup_without_script_or_style(self) -> None:
        """A strict policy for content lets it be seen: it has classes, and neither styles nor scripts."""
        history._own.clear()
        with FakeClock() as clock:
            self.note_points(cache, clock)
            client = Client()
            client.force_login(user("reader", "view_cache"))
            text = client.get(url("change")).content.decode()
        picture = text.partition('<svg class="storeroom-chart')[2].partition("</svg>")[0]
        assert "Reads per second" in picture
        assert 'class="storeroom-hits"' in picture
        assert "style=" not in picture
        assert "<script" not in picture
