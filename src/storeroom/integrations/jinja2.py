"""A tag for Jinja2 that keeps a part of a template: ``{% cache key, timeout, tags=[...] %}…{% endcache %}``.

    environment = Environment(extensions=["storeroom.integrations.jinja2.CacheExtension"])
    environment.storeroom_cache = "fragments"  # an alias, or a cache; "default" if it is not said

The part is rendered as a computation of get_or_set(): once, however many callers; in asynchronous environments by
aget_or_set(). Its text is stored, not an object of Jinja2's, so any serializer will do.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from jinja2 import Environment, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from markupsafe import Markup

from storeroom.config.freshness import FreshnessOptions
from storeroom.registry import caches
from storeroom.wording import nearest

__all__ = ["CacheExtension", "fragment_key"]

_OPTIONS: Final = frozenset({"tags", "version", "using", *FreshnessOptions.__annotations__})


def fragment_key(key: object, *, autoescape: bool = True) -> str:
    """Return the key of the entry that has a part of a template: for ``cache.delete(fragment_key("sidebar"))``.

    Args:
        key: as in the tag.
        autoescape: whether the template is one in which values are escaped: such a part is another one.
    """
    return f"fragment:{'' if autoescape else 'plain:'}{key}"


class CacheExtension(Extension):
    """The tag: see docs/jinja2.md.

    Raises:
        TemplateSyntaxError: when a template is compiled: an option is unknown, or there is no key.
    """

    tags = {"cache"}

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.extend(storeroom_cache="default")

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the call that a tag is."""
        line = next(parser.stream).lineno
        given: list[nodes.Expr] = [nodes.ContextReference(), parser.parse_expression()]
        named: list[nodes.Keyword] = []
        while parser.stream.skip_if("comma"):
            if parser.stream.current.type == "name" and parser.stream.look().type == "assign":
                named.append(_keyword(parser))
            elif named or len(given) == 3:
                parser.fail(
                    "{% cache %} takes a key, perhaps a timeout, and options by name: {% cache key, 300, early=1 %}."
                )
            else:
                given.append(parser.parse_expression())
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        call = self.call_method("_rendered", given, named)
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _rendered(
        self, context: Context, key: object, *timeout: Any, caller: Callable[[], Any], using: Any = None, **options: Any
    ) -> Any:
        """Return the text; in an asynchronous environment, an awaitable of it."""
        alias = vars(self.environment)["storeroom_cache"] if using is None else using
        cache: Any = caches[alias] if isinstance(alias, str) else alias
        kind = Markup if context.eval_ctx.autoescape else str
        name = fragment_key(key, autoescape=kind is Markup)
        if self.environment.is_async:
            return _awaited(cache, name, kind, caller, timeout, options)
        return kind(cache.get_or_set(name, lambda: str(caller()), *timeout, **options))


async def _awaited(
    cache: Any, name: str, kind: type[str], caller: Callable[[], Awaitable[str]], timeout: Any, options: Any
) -> str:
    async def compute() -> str:
        return str(await caller())

    return kind(await cache.aget_or_set(name, compute, *timeout, **options))


def _keyword(parser: Parser) -> nodes.Keyword:
    name = next(parser.stream).value
    if name not in _OPTIONS:
        parser.fail(f"{{% cache %}} has no option {name!r}.{nearest(name, sorted(_OPTIONS))}")
    parser.stream.expect("assign")
    return nodes.Keyword(name, parser.parse_expression())
