"""The code of a function that returns the keys, or the tags, of another function's calls.

It has the same parameters and defaults: ``load(id, lang='en')`` with the template ``"user:{id}:{lang}"`` becomes
something like ::

    def load(id, lang=default):
        return f"user:{text(id)}:{text(lang)}"

So Python itself sorts out positional and named arguments and defaults, and tells a wrong call in its own words.
``inspect.Signature.bind()`` does the same, but many times slower than a hit should be.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from storeroom.exceptions import UnkeyableArgumentError
from storeroom.functions.argument_text import has_own_str, plain_text, text_of
from storeroom.functions.templates import Field

__all__ = ["KeyCode"]


class _Named:
    """Written as a name where a signature shows a default."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


class KeyCode:
    """Writes the code of a function that makes keys or tags, for calls of one that has this name in errors."""

    def __init__(self, called: str, signature: inspect.Signature) -> None:
        self.called, self.signature = called, signature
        self._names: dict[str, Any] = {}
        self._underscores = "_"
        while any(name.startswith(self._underscores) for name in signature.parameters):
            self._underscores += "_"  # so that no parameter hides the names of the code
        self.escapes: list[tuple[str, str]] = []  # characters that are replaced in values, and their replacements

    def _name(self, value: Any) -> str:
        """Return the name by which the code finds the value: f-strings cannot hold every literal."""
        name = f"{self._underscores}{len(self._names)}"
        self._names[name] = value
        return name

    def expression(self, parts: Iterable[str | Field], write: Callable[[Field], str]) -> str:
        """Return the code of a string: literal parts as they are, and fields as `write` has it."""
        written = [repr(part) if isinstance(part, str) else f'f"{{{write(part)}}}"' for part in parts if part]
        return " ".join(written) or '""'

    def typed(self, field: Field) -> str:
        """Return the code of a value's text with its type."""
        is_int = f"{self._name(type)}({field.path}) is {self._name(int)}"
        return self._unless_default(field, f"{field.path} if {is_int} else {self._call(text_of, field)}")

    def _unless_default(self, field: Field, text: str) -> str:
        """Return code that writes a default without a text, such as a sentinel, as the default that it is."""
        default = self._parameter_default(field)
        if default is inspect.Parameter.empty or _has_text(default):
            return text
        return f"{self._name('<default>')} if {field.path} is {self._name(default)} else {text}"

    def _parameter_default(self, field: Field) -> Any:
        parameter = self.signature.parameters.get(field.path)  # an attribute of one has no default
        return inspect.Parameter.empty if parameter is None else parameter.default

    def plain(self, field: Field) -> str:
        """Return the code of a value's text for the eye, or as the field's conversion and format have it."""
        if field.spec:
            return self._escaped(f"{self._name(format)}({field.path}, {self._name(field.spec)})")
        if field.conversion:
            return self._escaped(
                self._unless_default(field, self._call(text_of, field))
                if field.conversion == "r"
                else self._call(_shown, field)
            )
        if any(character == "-" for character, _ in self.escapes):  # numbers may hold one
            return self._escaped(self._call(plain_text, field))
        # Numbers and texts, as most arguments are, are known here, without a call. An attribute is asked for once.
        value, bare = f"{self._underscores}value", frozenset((int,) if self.escapes else (int, str))
        is_bare = f"{self._name(type)}({value} := {field.path}) in {self._name(bare)}"
        return f"{value} if {is_bare} else {self._escaped(self._call(plain_text, field, value))}"

    def _call(self, write: Callable[[Any], str], field: Field, value: str | None = None) -> str:
        argument = self._name(field.path)
        return f"{self._name(_explained(write, self.called))}({value or field.path}, {argument})"

    def _escaped(self, code: str) -> str:
        if not self.escapes:
            return code
        pairs = self.escapes

        def escaped(text: str) -> str:
            for character, escape in pairs:
                if character in text:
                    text = text.replace(character, escape)
            return text

        return f"{self._name(escaped)}({code})"

    def looked_up(self, texts: Any, parameter: str, *, by_type: bool) -> str:
        """Return the code of a text that a mapping has for a parameter's value, or for its type."""
        found = f"{self._name(type)}({parameter})" if by_type else parameter
        return f' f"{{{self._name(texts)}[{found}]}}"'

    def function(self, returned: str) -> Callable[..., Any]:
        """Return a function with the signature's parameters and defaults, and this code as its result."""
        parameters = [
            parameter.replace(annotation=parameter.empty, default=self._default(parameter))
            for parameter in self.signature.parameters.values()
        ]
        shown = self.signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
        name = f"{self._underscores}call"
        refused, too_long = self._name(ValueError), self._name(_too_long)
        source = (
            f"def {name}{shown}:\n    try:\n        return {returned}\n"
            f"    except {refused} as {self._underscores}error:\n"
            f"        raise {too_long}({self._underscores}error, {self.called!r}) from None\n"
        )
        exec(compile(source, f"<keys of {self.called}>", "exec"), self._names)  # noqa: S102 -- the function's own parameters; texts come through repr()
        made: Callable[..., Any] = self._names[name]
        # An error about wrong arguments is to name the function that was called.
        made.__name__ = made.__qualname__ = self.called
        return made

    def _default(self, parameter: inspect.Parameter) -> Any:
        return parameter.empty if parameter.default is parameter.empty else _Named(self._name(parameter.default))


def _has_text(value: Any) -> bool:
    try:
        text_of(value)
    except UnkeyableArgumentError:
        return False
    return True


def _shown(value: Any) -> str:
    if not has_own_str(type(value)):
        raise UnkeyableArgumentError(f"an instance of {type(value).__qualname__}, which has no str() of its own")
    return str(value)


def _too_long(error: ValueError, called: str) -> ValueError | UnkeyableArgumentError:
    """Return an error that tells of a number which Python does not write; any other as it is."""
    if "digits" not in str(error):
        return error
    return UnkeyableArgumentError(
        f"{called}(): an argument is, or holds, a whole number of more digits than Python writes "
        "(sys.get_int_max_str_digits). Name what identifies the call in key=…, or raise that limit in every process."
    )


def _explained(write: Callable[[Any], str], called: str) -> Callable[[Any, str], str]:
    """Return `write`, with an error that names the function and the argument where a value has no text."""

    def checked(value: Any, argument: str) -> str:
        try:
            return write(value)
        except RecursionError:
            raise UnkeyableArgumentError(
                f"{called}(): the argument {argument} holds itself, or is nested too deeply for a key. Name what "
                f"identifies it in key=…, such as {{{argument}.id}}."
            ) from None
        except UnkeyableArgumentError as error:
            name = argument.partition(".")[0]
            raise UnkeyableArgumentError(
                f"{called}(): the argument {argument} is, or holds, {error}, of which no key can be made that other "
                f"processes make as well. Name what identifies it in key=…, such as {{{argument}.id}}; or give its "
                "class a method __cache_key__() that returns it; or, if the result does not depend on it, pass "
                f"ignore=[{name!r}]."
            ) from None

    return checked
