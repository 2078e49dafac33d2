"""The tag of Jinja2: kept text, its keys, its escaping; and compiled templates in a cache."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import jinja2
import pytest
from jinja2 import DictLoader, Environment, MemcachedBytecodeCache, TemplateSyntaxError

import storeroom
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.integrations.jinja2 import fragment_key

EXTENSION = "storeroom.integrations.jinja2.CacheExtension"


class Site:
    """Renders templates of one environment; synchronous or not."""

    def __init__(self, is_async, templates=None, **options):
        self.environment = Environment(
            extensions=[EXTENSION], enable_async=is_async, loader=DictLoader(templates or {}), **options
        )
        self.is_async = is_async

    def render(self, source, **context):
        template = self.environment.from_string(source) if "{" in source else self.environment.get_template(source)
        return asyncio.run(template.render_async(**context)) if self.is_async else template.render(**context)


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def is_async(request):
    return request.param


def counter():
    runs = []

    def run():
        runs.append(1)
        return len(runs)

    return run


def test_a_part_is_rendered_once(alias, is_async, clock):
    """By its key, for its timeout; the rest of the template each time."""
    site, n = Site(is_async), counter()
    source = "{{ n() }}{% cache 'part' ~ who, '5m' %}[{{ n() }}{{ who }}]{% endcache %}"
    assert [site.render(source, n=n, who=who) for who in "aab"] == ["1[2a]", "3[2a]", "4[5b]"]
    assert storeroom.caches[alias].get(fragment_key("parta", autoescape=False)) == "[2a]"
    clock.advance("6m")
    assert site.render(source, n=n, who="a") == "6[7a]"


def test_a_part_goes_by_tag_and_by_key(alias, is_async):
    """Without a timeout the alias's own counts."""
    site, n, cache = Site(is_async, autoescape=True), counter(), storeroom.caches[alias]
    source = "{% cache key, tags=['news', who] %}{{ n() }}{% endcache %}"
    rendered = []
    for forget in (lambda: None, lambda: cache.invalidate_tags("news"), lambda: cache.delete(fragment_key(("a", 1)))):
        forget()
        rendered += [site.render(source, n=n, key=("a", 1), who="x") for _ in range(2)]
    assert rendered == ["1", "1", "2", "2", "3", "3"]


@pytest.mark.parametrize("serializer", ["pickle", "json", "msgpack"])
def test_a_part_is_escaped_as_it_was(alias, tmp_path, is_async, serializer):
    """It is text in any serializer; a plain template has a part of its own."""
    cache = FileBasedCache(tmp_path, {"OPTIONS": {"serializer": serializer}})
    text = "{% cache 'part', 60 %}<b>{{ name }}</b>{% endcache %}"
    templates = {
        "page.html": text,
        "page.txt": text,
        "within.html": "{% set x %}{% include 'page.html' %}{% endset %}{{ x }}",
    }
    site = Site(is_async, templates, autoescape=jinja2.select_autoescape())
    site.environment.storeroom_cache = cache
    for _ in range(2):
        assert site.render("page.html", name="<") == "<b>&lt;</b>"
        assert site.render("page.txt", name="<") == "<b><</b>"
        assert site.render("within.html", name="<") == "<b>&lt;</b>"
    assert type(cache.get(fragment_key("part"))) is str
    macro = "{% macro m() %}{% cache 'm', 60 %}<i>{% endcache %}{% endmacro %}"
    assert site.render(macro + "{% autoescape true %}{{ m() }}{{ m() }}{% endautoescape %}") == "<i><i>"


def test_callers_at_once_render_a_part_once(alias, is_async):
    """Threads wait for each other, and so do tasks."""
    site, n = Site(is_async), counter()
    template = site.environment.from_string("{% cache 'part', 60 %}{{ n() }}{{ pause() }}{% endcache %}")

    async def tasks():
        async def pause():
            await asyncio.sleep(0)
            return ""

        return await asyncio.gather(*(template.render_async(n=n, pause=pause) for _ in range(5)))

    def threads():
        with ThreadPoolExecutor(5) as pool:
            return list(pool.map(lambda _: template.render(n=n, pause=lambda: ""), range(5)))

    assert (asyncio.run(tasks()) if is_async else threads()) == ["1"] * 5


def test_a_stale_part_is_served_while_another_fails(alias, is_async, clock):
    """The options of get_or_set() are the tag's; another alias or cache may be used."""
    site, n = Site(is_async), counter()
    other = LocMemCache("test_jinja2", {})
    source = "{% cache 'part', 10, stale_if_error=60, using=other %}{{ n() }}{{ 1 / divisor }}{% endcache %}"
    assert site.render(source, n=n, divisor=1, other=other) == "11.0"
    clock.advance(11)
    assert site.render(source, n=n, divisor=0, other=other) == "11.0"
    assert storeroom.caches[alias].get(fragment_key("part", autoescape=False)) is None
    other.clear()
    with pytest.raises(ZeroDivisionError):
        site.render(source, n=n, divisor=0, other=other)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% cache %}{% endcache %}", "unexpected 'end of statement"),
        ("{% cache 'a', tagz=[] %}{% endcache %}", r"has no option 'tagz'.*tags"),
        ("{% cache 'a', 1, 2 %}{% endcache %}", "takes a key, perhaps a timeout"),
        ("{% cache 'a', early=1, 2 %}{% endcache %}", "takes a key, perhaps a timeout"),
        ("{% cache 'a' %}", "endcache"),
    ],
)
def test_a_mistake_in_a_tag_is_told_when_it_is_compiled(is_async, source, message):
    """With its line, as all mistakes in templates."""
    with pytest.raises(TemplateSyntaxError, match=message) as raised:
        Site(is_async).environment.from_string("\n\n" + source)
    assert raised.value.lineno == 3


def test_compiled_templates_are_kept_in_an_alias(alias, monkeypatch):
    """MemcachedBytecodeCache takes a cache as it is: a second process compiles nothing."""
    kept = MemcachedBytecodeCache(storeroom.caches[alias], prefix="templates:", timeout=3600)
    for _ in range(2):
        environment = Environment(loader=DictLoader({"a": "{{ 1 + 1 }}"}), bytecode_cache=kept)
        assert environment.get_template("a").render() == "2"
        monkeypatch.setattr(Environment, "compile", lambda *_: pytest.fail("compiled again"))
    kept = storeroom.caches[alias].keys()
    assert any(key.startswith("templates:") for key in kept)
