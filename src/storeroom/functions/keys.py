"""The key of a call: made of the function's name and its arguments, or by a template.

An option that does not fit the function is told when that is decorated. ``key_function`` writes the code of a key.
"""

import inspect
import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any

from storeroom.exceptions import ConfigurationError, NotSupportedError, UnkeyableArgumentError
from storeroom.functions import origin
from storeroom.functions.argument_text import text_of
from storeroom.functions.classes import ClassEndings, takes_instance_or_class
from storeroom.functions.key_function import KeyCode
from storeroom.functions.shapes import Shape
from storeroom.functions.templates import Field, Template, escapes
from storeroom.wording import nearest

__all__ = ["is_fixed", "key_maker", "name_of", "own_tag", "shape_of", "signature_of", "tags_maker"]


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the function's signature, whose annotations may be names that are not defined yet.

    Raises:
        TypeError: it has none that Python knows of.
    """
    try:
        if sys.version_info >= (3, 14):
            import annotationlib  # noqa: PLC0415 -- not there before

            return inspect.signature(function, annotation_format=annotationlib.Format.FORWARDREF)
        return inspect.signature(function)
    except ValueError as error:
        raise TypeError(
            f"@cached cannot tell the parameters of {function!r} ({error}); wrap it in a function that has some."
        ) from error


def name_of(function: Callable[..., Any]) -> str:
    """Return the function's name in errors."""
    name = getattr(function, "__qualname__", None)
    return f"{function.__module__}.{name}" if name else repr(function)


def _name_in_keys(function: Callable[..., Any]) -> str:
    """Return the name that tells the function from all others, in every process; an error if there is none."""
    plain = inspect.unwrap(function)
    name = getattr(plain, "__qualname__", "<unnamed>")
    if "<lambda>" in name or name == "<unnamed>":
        raise _no_key(function, "it has no name of its own")
    code = getattr(plain, "__code__", None)
    closed_over = set(getattr(code, "co_freevars", ())) - {plain.__name__, "__class__"}
    if "<locals>" in name and closed_over:
        names = ", ".join(sorted(closed_over))
        raise _no_key(function, f"it uses {names} of the function around it, which may differ each time")
    return f"{origin.origin_of(plain)}.{name}"


def _no_key(function: Callable[..., Any], reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"@cached cannot make keys of the name of {name_of(function)}, as {reason}. "
        'Pass key="…", a template that names its parameters, such as "user:{id}".'
    )


def _misfit(code: KeyCode, mistake: str) -> ConfigurationError:
    return ConfigurationError(f"{code.called}: {mistake}")


def _unknown(code: KeyCode, option: str, name: str) -> ConfigurationError:
    parameters = list(code.signature.parameters)
    known = f"its parameters are {', '.join(parameters)}" if parameters else "it has none"
    return _misfit(code, f"{option} {name!r}, which is no parameter; {known}.{nearest(name, parameters)}")


def key_maker(
    function: Callable[..., Any], key: str | Callable[..., object] | None, ignore: Collection[str], suffix: str,
    binds: str,
) -> Callable[..., str]:  # fmt: skip
    """Return a function of the same arguments that returns the key of a call; the suffix is put behind every key.

    It is made by a template, by a function of the same arguments, or, for None, of the name and all arguments.
    `binds` tells the first argument of a method: "instance", "class" or "nothing".

    Raises:
        ConfigurationError: the template or `ignore` do not fit the function.
    """
    code = KeyCode(name_of(function), signature_of(function))
    for name in ignore:
        if name not in code.signature.parameters:
            raise _unknown(code, "ignore has", name)
    first = next(iter(code.signature.parameters), None)
    endings = None
    if key is not None and takes_instance_or_class(function, first, binds):
        endings = ClassEndings(function, depends=first not in ignore)
    is_class = binds == "class" or first == "cls"
    if callable(key):
        return _called(code.called, key, suffix, None if endings is None else _ending_of(endings, first, is_class))
    if key is None:
        parts = _default_parts(_name_in_keys(function), code.signature, ignore)
        return code.function(code.expression([*parts, suffix], code.typed))
    template = _template(code, "key", key)
    code.escapes = escapes(_separators(code, template, ignore))
    ending = "" if endings is None else code.looked_up(endings, str(first), by_type=not is_class)
    return code.function(code.expression([*template.parts, suffix], code.plain) + ending)


def is_fixed(function: Callable[..., Any], key: str | Callable[..., object] | None, binds: str) -> bool:
    """Tell whether calls by texts, whole numbers and None alone have the same key at any time."""
    parameters = signature_of(function).parameters
    if callable(key) or (key and takes_instance_or_class(function, next(iter(parameters), None), binds)):
        return False
    fields = Template.parse(key).fields if key else ()
    is_bare = all(field.path == field.parameter and not field.spec for field in fields)
    kinds = {type(each.default) for each in parameters.values() if each.default is not each.empty}
    return is_bare and kinds <= {str, int, float, bool, type(None), bytes}


def shape_of(
    function: Callable[..., Any], key: str | Callable[..., object] | None, ignore: Collection[str], suffix: str,
    binds: str,
) -> Shape:  # fmt: skip
    """Return the shape of the keys that key_maker() makes by the same options.

    Raises:
        NotSupportedError: they are made by a function, so that nobody can tell.
    """
    if callable(key):
        raise NotSupportedError(
            f"{name_of(function)}(): its keys are made by a function, so that they cannot be told from others. "
            "For clear() pass clearable=True; for keys() a template as key."
        )
    code = KeyCode(name_of(function), signature_of(function))
    if key is None:
        return Shape.of_parts([*_default_parts(_name_in_keys(function), code.signature, ignore), suffix])
    template = _template(code, "key", key)
    first = next(iter(code.signature.parameters), None)
    has_endings = takes_instance_or_class(function, first, binds)
    return Shape.of_parts([*template.parts, suffix], separators=template.separators(), has_endings=has_endings)


def own_tag(function: Callable[..., Any], key: str | Callable[..., object] | None, suffix: str) -> str:
    """Return the tag of all results of a function, and of no others."""
    name = key if isinstance(key, str) else _name_in_keys(function)
    return f"@cached {name}{suffix}"


def _ending_of(endings: ClassEndings, first: str | None, is_class: bool) -> Callable[..., str]:
    def ending_of(*args: Any, **kwargs: Any) -> str:
        bound = args[0] if args else kwargs.get(str(first))
        return endings[bound if is_class else type(bound)]

    return ending_of


def _called(
    called: str, key: Callable[..., object], suffix: str, ending_of: Callable[..., str] | None
) -> Callable[..., str]:
    def key_of(*args: Any, **kwargs: Any) -> str:
        made = key(*args, **kwargs)
        end = suffix if ending_of is None else suffix + ending_of(*args, **kwargs)
        try:
            return (made if isinstance(made, str) else text_of(made)) + end
        except UnkeyableArgumentError as error:
            raise UnkeyableArgumentError(
                f"{called}(): the function that was given as key returned {error}; expected a string, or a value "
                "that identifies the call, such as a number or a tuple of such."
            ) from None

    return key_of


def _default_parts(name: str, signature: inspect.Signature, ignore: Collection[str]) -> list[str | Field]:
    """Write the call down: ``shop.load(id={id}, lang={lang})``. The names stay right when parameters change places."""
    stars: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parts: list[str | Field] = [f"{name}("]
    for parameter in signature.parameters.values():
        if parameter.name not in ignore:
            comma = ", " if len(parts) > 1 else ""
            star = stars.get(parameter.kind, "")
            parts += [f"{comma}{star}{parameter.name}=", Field(parameter.name, parameter.name)]
    return [*parts, ")"]


def _template(code: KeyCode, option: str, text: object) -> Template:
    if not isinstance(text, str):
        raise _misfit(code, f"{option} is {text!r}; expected a template such as 'user:{{id}}', or a function.")
    try:
        template = Template.parse(text)
    except ValueError as error:
        raise _misfit(code, f"{option}={text!r} {error}.") from None
    for field in template.fields:
        if field.parameter not in code.signature.parameters:
            raise _unknown(code, f"{option}={text!r} names", field.parameter)
    return template


def _separators(code: KeyCode, template: Template, ignore: Collection[str]) -> str:
    """Return the separators of a key's template, which has to name all parameters, and tell them apart."""
    named = {*ignore, *(field.parameter for field in template.fields)}
    for name in code.signature.parameters:
        if name not in named:
            raise _misfit(
                code,
                f"key={template.text!r} leaves out the parameter {name!r}, so that calls that differ in it would share "
                f"an entry. Name it in the key, as {{{name}}}, or in ignore=[{name!r}] if the result does not depend "
                "on it.",
            )
    try:
        return template.separators()
    except ValueError as error:
        raise _misfit(code, f"key={template.text!r} {error}.") from None


def tags_maker(
    function: Callable[..., Any], tags: Collection[str] | Callable[..., Iterable[object]]
) -> Callable[..., Collection[str]]:
    """Return a function of the same arguments that returns the tags of a call, by templates or by a function.

    Raises:
        ConfigurationError: a template does not fit the function.
    """
    if callable(tags):
        return lambda *args, **kwargs: [str(tag) for tag in tags(*args, **kwargs)]
    code = KeyCode(name_of(function), signature_of(function))
    if isinstance(tags, str):
        raise _misfit(code, f"tags is {tags!r}; expected a list of tags: [{tags!r}].")
    templates = [_template(code, "tags", tag) for tag in tags]
    # Nothing is escaped: a tag has to be the one that invalidate_tags() is called with, written by hand.
    made = [code.expression(template.parts, code.plain) for template in templates]
    return code.function(f"({''.join(f'{tag}, ' for tag in made)})")
