"""{% cache %}, beside Django's own."""

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from django.core.cache import caches
from django.core.cache.utils import make_template_fragment_key
from django.template import Context, TemplateSyntaxError, engines
from django.test import SimpleTestCase, override_settings
from django.utils.safestring import mark_safe

from storeroom.engines import background
from storeroom.testing import FakeClock

FILES = "storeroom.backends.filebased.FileBasedCache"
MEMORY = "storeroom.backends.locmem.LocMemCache"


def rendered(source, **context):
    """Render the source of a template with our tag, if it loads none."""
    load = "" if "{% load" in source else "{% load storeroom %}"
    return engines["django"].from_string(load + source).render(context)


class Number:
    """A value that tells how often it was asked for."""

    def __init__(self, seconds=0.0):
        self.count, self.seconds, self.threads = 0, seconds, set()

    def __str__(self):
        self.count += 1
        count = self.count
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        return str(count)


class FragmentTests(SimpleTestCase):
    """The tag."""

    def setUp(self):
        self.clock = self.enterContext(FakeClock())
        caches["default"].clear()
        caches["other"].clear()

    def test_a_fragment_is_made_once(self):
        """By its name and what it differs by, within its time."""
        number = Number()
        source = "{% cache time name who %}{{ n }}{% endcache %}"
        asked = [("a", 60), ("a", "60"), ("b", "1m"), ("a", None)]
        assert [rendered(source, n=number, who=who, time=time) for who, time in asked] == ["1", "1", "2", "1"]
        self.clock.advance(61)
        assert rendered(source, n=number, who="b", time=60) == "3"

    def test_it_shares_the_fragments_of_djangos_own(self):
        """The key is Django's: who deletes by it deletes this."""
        ours, theirs = "{% cache 60 name who %}{{ n }}{% endcache %}", "{% load cache %}"
        number = Number()
        for first, second in ((ours, theirs + ours), (theirs + ours, ours)):
            before = number.count
            assert rendered(first, n=number, who="<a>") == rendered(second, n=number, who="<a>")
            assert number.count == before + 1
            caches["default"].delete(make_template_fragment_key("name", ["<a>"]))

    def test_thirty_threads_make_a_fragment_once(self):
        """The others wait for it."""
        number = Number(seconds=0.05)
        with ThreadPoolExecutor(30) as pool:
            found = list(pool.map(lambda _: rendered("{% cache 60 name %}{{ n }}{% endcache %}", n=number), range(30)))
        assert set(found) == {"1"}

    def test_fragments_go_by_tag(self):
        """Names with commas, or a list."""
        number = Number()
        source = "{% cache 60 name tags=tags %}{{ n }}{% endcache %}"
        for tags, tag in (("news, menu", "news"), (["a b"], "a b"), ('"x"', '"x"')):
            caches["default"].clear()
            before = rendered(source, n=number, tags=tags)
            assert rendered(source, n=number, tags=tags) == before
            caches["default"].invalidate_tags(tag)
            assert rendered(source, n=number, tags=tags) != before

    def test_a_stale_fragment_is_made_anew_in_the_background(self):
        """Of the values of the request that has found it stale, whatever this does next."""
        number = Number()
        source = (
            '{% for who in "ab" %}{% cache 60 name who stale=30 tags="t" %}{{ n }}{{ who }}{% endcache %} {% endfor %}'
        )
        assert rendered(source, n=number) == "1a 2b "
        self.clock.advance(70)
        assert rendered(source, n=number) == "1a 2b "
        assert background.drain()
        found = rendered(source, n=number)
        assert sorted(found.split()) in (["3a", "4b"], ["3b", "4a"]), found
        assert len(number.threads) > 1

    def test_markup_stays_markup(self):
        """Whatever the serializer makes of it."""
        source = "{% cache 60 name %}{{ n }}{% endcache %}"
        for serializer in ("json", "msgpack", "pickle"):
            folder = self.enterContext(tempfile.TemporaryDirectory())
            options = {"LOCATION": folder, "OPTIONS": {"serializer": serializer}}
            with override_settings(CACHES={"default": {"BACKEND": FILES, **options}}):
                for _ in range(2):
                    assert rendered(source, n=mark_safe("<b>ä</b>")) == "<b>ä</b>"
                stored = caches["default"].get(make_template_fragment_key("name"))
                assert (type(stored), stored) == (str, "<b>ä</b>")

    def test_a_cache_may_be_named(self):
        """The alias template_fragments is taken before the default one."""
        source = "{% cache 60 name using=alias %}{{ n }}{% endcache %}"
        assert rendered(source, n=1, alias="other") == "1"
        assert rendered("{% cache 60 name %}{{ n }}{% endcache %}", n=2) == "2"
        assert rendered("{% cache 60 name using='djangos' %}{{ n }}{% endcache %}", n=3) == "3"
        named = {"default": {"BACKEND": MEMORY}, "template_fragments": {"BACKEND": MEMORY, "LOCATION": "f"}}
        with override_settings(CACHES=named):
            assert rendered("{% cache 60 name %}{{ n }}{% endcache %}", n=4) == "4"
            assert caches["template_fragments"].count() == 1

    def test_a_fragment_within_itself_is_rendered(self):
        """As by Django's own."""
        source = "{% cache 60 name %}a{% cache 60 name %}b{% endcache %}{% endcache %}"
        assert rendered(source) == "ab"

    def test_mistakes_are_told(self):
        """By the errors of Django's own."""
        for source, told in (
            ("{% cache 60 %}{% endcache %}", "requires at least 2 arguments"),
            ("{% cache 'soon' name %}{% endcache %}", "non-integer timeout value: 'soon'"),
            ("{% cache nothing|default:nothing name %}{% endcache %}", "unknown variable"),
            ("{% cache 60 name using='nowhere' %}{% endcache %}", "Invalid cache name specified for cache tag"),
            ("{% cache 60 name using='djangos' tags='a' %}{% endcache %}", "which cannot do that"),
        ):
            with self.assertRaisesMessage(TemplateSyntaxError, told):
                rendered(source)

    def test_the_context_is_as_it_was(self):
        """Variables that the fragment sets by include or with do not stay."""
        context = Context({"n": 1})
        template = engines["django"].from_string(
            "{% load storeroom %}{% cache 60 name stale=5 %}{% with n=2 %}{{ n }}{% endwith %}{% endcache %}{{ n }}"
        )
        assert template.template.render(context) == "21"
