"""Templates of keys and tags: ``"user:{id}"``, with the names of a function's parameters.

The fields are those of ``str.format``, as far as they make sense in a key: docs/cached.md has a table of them.

Between two fields stands a *separator*. Its characters are escaped in the arguments, as in a URL, so that ``"{a}:{b}"``
makes one key of ``"x:y", "z"`` and another of ``"x", "y:z"``.
"""

import string
from dataclasses import dataclass
from keyword import iskeyword

__all__ = ["Field", "Template", "escapes"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a template."""

    parameter: str  # its name
    path: str  # that name, and the attributes that lead to the value: user.profile.id
    conversion: str = ""  # "" for the text for the eye, "r" for the one with its type, "s" for that of str()
    spec: str = ""  # the format, after the colon


@dataclass(frozen=True, slots=True)
class Template:
    """A template, taken apart."""

    text: str  # as it was written
    parts: tuple[str | Field, ...]  # literal texts and fields, in order

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Take a template apart.

        Raises:
            ValueError: it cannot be understood. The message names the mistake.
        """
        try:
            pieces = list(string.Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"cannot be read ({error}); write {{{{ and }}}} for braces themselves") from error
        parts: list[str | Field] = []
        for literal, name, spec, conversion in pieces:
            if literal:
                parts.append(literal)
            if name is not None:
                parts.append(_field(name, spec or "", conversion or ""))
        return cls(text, tuple(parts))

    @property
    def fields(self) -> list[Field]:
        """Its fields, in order."""
        return [part for part in self.parts if isinstance(part, Field)]

    def separators(self) -> str:
        """Return the characters that separate the fields from each other: "" where there is one field at most.

        Raises:
            ValueError: two fields have no separator, so that two calls could have one key. The message names the two.
        """
        found = between = ""
        last: Field | None = None
        for part in self.parts:
            if isinstance(part, str):
                # Letters and digits separate nothing, as values are made of them. The percent sign escapes.
                between += "".join(character for character in part if not character.isalnum() and character != "%")
                continue
            if last is not None and not between:
                raise ValueError(
                    f"has no separator between {{{last.path}}} and {{{part.path}}} that tells where one ends; "
                    "write one, such as a colon"
                )
            found += between if last is not None else ""
            last, between = part, ""
        return "".join(dict.fromkeys(found))


def _field(name: str, spec: str, conversion: str) -> Field:
    names = name.split(".")
    if not all(part.isidentifier() and not iskeyword(part) for part in names):
        raise ValueError(
            f"has the field {{{name}}}; expected the name of a parameter, with attributes as in {{user.id}}, "
            "or a function in place of the template"
        )
    if conversion not in ("", "r", "s"):
        raise ValueError(f"has the conversion !{conversion}; expected !r or !s")
    if conversion and spec:
        raise ValueError(f"has both a conversion and a format for {{{name}}}; expected one of them")
    if "{" in spec:
        raise ValueError(f"has a field within the format of {{{name}}}; expected a fixed one")
    return Field(names[0], name, conversion, spec)


def escapes(separators: str) -> list[tuple[str, str]]:
    """Return each character that may not occur in a value, and its escape.

    >>> escapes(":")
    [('%', '%25'), (':', '%3A')]
    """
    characters = ("%", *separators) if separators else ()
    return [
        (character, "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass")))
        for character in characters
    ]
