"""The reference of the API: pages that Sphinx fills with signatures and docstrings of the code."""

import inspect
from collections.abc import Iterator
from typing import Final, NamedTuple

import storeroom

__all__ = ["PAGES", "Page", "pages"]


class Page(NamedTuple):
    """A page of the reference: its title, its summary, and what it documents, each with its kind."""

    title: str
    summary: str
    objects: tuple[tuple[str, str], ...]


def _kind(found: object) -> str:
    """Return the word of Sphinx's directive for an object; of a class without its members, as a page tells them."""
    return "class-alone" if isinstance(found, type) else "function" if inspect.isroutine(found) else "data"


def _public() -> tuple[tuple[str, str], ...]:
    """Return the names of the package that are no errors."""
    found = ((name, getattr(storeroom, name)) for name in storeroom.__all__)
    return tuple((_kind(value), f"storeroom.{name}") for name, value in found if not _is_error(value))


def _errors() -> tuple[tuple[str, str], ...]:
    return tuple(
        ("exception", f"storeroom.{name}") for name in storeroom.__all__ if _is_error(getattr(storeroom, name))
    )


def _is_error(found: object) -> bool:
    return isinstance(found, type) and issubclass(found, Exception)


PAGES: Final = {
    "package": Page(
        "The package",
        "The names of `storeroom` that are no errors.",
        _public(),
    ),
    "cache": Page(
        "A cache",
        "Every method of a cache. Each backend's class has them; so have `storeroom.cache` and `storeroom.caches[…]`.",
        (("class", "storeroom.base.BaseCache"), ("class", "storeroom.base.Lock")),
    ),
    "backends": Page(
        "Backends",
        "The classes that `BACKEND` names, and the door for authors of further ones.",
        (
            ("class-alone", "storeroom.backends.locmem.LocMemCache"),
            ("class-alone", "storeroom.backends.filebased.FileBasedCache"),
            ("class-alone", "storeroom.backends.db.DatabaseCache"),
            ("class-alone", "storeroom.backends.redis.RedisCache"),
            ("class-alone", "storeroom.backends.memcached.PyMemcacheCache"),
            ("class-alone", "storeroom.backends.memcached.PyLibMCCache"),
            ("class-alone", "storeroom.backends.tiered.TieredCache"),
            ("class-alone", "storeroom.backends.dummy.DummyCache"),
            ("function", "storeroom.backends.base.codec_of"),
        ),
    ),
    "pages": Page(
        "Pages and integrations",
        "Whole answers of web applications, and the doors of frameworks and of monitoring.",
        (
            ("function", "storeroom.pages.page"),
            ("class", "storeroom.pages.Pages"),
            ("class", "storeroom.integrations.asgi.PageCache"),
            ("class", "storeroom.integrations.wsgi.PageCache"),
            ("class-alone", "storeroom.integrations.cachelib.StoreroomCache"),
            ("class-alone", "storeroom.integrations.django_redis.RedisCache"),
            ("class-alone", "storeroom.integrations.prometheus.StoreroomCollector"),
            ("function", "storeroom.integrations.opentelemetry.instrument"),
            ("function", "storeroom.integrations.opentelemetry.uninstrument"),
        ),
    ),
    "testing": Page(
        "Test kit",
        "Means for tests of programs that cache, and of backends.",
        (
            ("class", "storeroom.testing.FakeClock"),
            ("class-alone", "storeroom.testing.ChaosCache"),
            ("class-alone", "storeroom.testing.CacheContract"),
        ),
    ),
    "errors": Page("Errors", "Every error and warning of `storeroom`, with the classes it derives from.", _errors()),
}

_OPTIONS: Final = {
    "class": "   :members:\n   :inherited-members: object\n   :show-inheritance:\n",
    "exception": "   :show-inheritance:\n",
}

_INDEX: Final = """# Reference

*Signatures and docstrings, taken from the code. [The API](../api.md) has all of it in short.*

"""


def _directive(kind: str, name: str) -> str:
    kind, _, alone = kind.partition("-")
    return f".. auto{kind}:: {name}\n{'' if alone else _OPTIONS.get(kind, '')}\n"


def pages() -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page of the reference, and of the page that leads to them."""
    for name, (title, summary, objects) in PAGES.items():
        directives = "".join(_directive(kind, path) for kind, path in objects)
        yield f"reference/{name}.md", f"# {title}\n\n*{summary}*\n\n```{{eval-rst}}\n{directives}```\n"
    listed = "".join(f"{name}\n" for name in PAGES)
    yield "reference/index.md", f"{_INDEX}```{{toctree}}\n\n{listed}```\n"
