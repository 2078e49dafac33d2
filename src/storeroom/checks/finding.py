"""The result of a check: a rule, and one alias that breaks it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from storeroom import manual

__all__ = ["Finding", "Level", "Rule"]

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Rule:
    """Something that can be wrong with a configuration.

    Attributes:
        id: its name, also for silencing it. "storeroom.E001" is an error: the configuration cannot work, or is
            dangerous. "storeroom.W001" is a warning: it works, but hardly as it is meant.
        title: the broken rule, in a few words.
        why: the effect on a program that leaves it so.
    """

    id: str
    title: str
    why: str

    @property
    def level(self) -> Level:
        """The kind, which the id tells by its letter."""
        return "error" if self.id.startswith("storeroom.E") else "warning"

    @property
    def docs(self) -> str:
        """The section of the documentation, as page and anchor."""
        return f"{manual.FINDINGS}#{self.short_id.lower()}"

    @property
    def short_id(self) -> str:
        """The id as people type it: "W001"."""
        return self.id.rpartition(".")[2]

    def broken(
        self, alias: str | None, what: str, remedy: str, mended: Mapping[str, Any] | None = None, command: str = ""
    ) -> "Finding":
        """Return the finding that `alias` breaks this rule; `mended` are the settings to write in its dict."""
        written = {alias: dict(mended)} if alias is not None and mended else {}
        return Finding(self, alias, what, remedy, written, command)


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, broken by one alias.

    Attributes:
        rule: tells id, level, title and why.
        alias: the name; None where no single alias is concerned.
        what: the mistake, with the value that is wrong.
        remedy: the way to mend it, in a sentence.
        mended: alias to the settings that change, as they should be written; may be empty.
        command: a shell command that mends it, where no setting does; may be empty.
    """

    rule: Rule
    alias: str | None
    what: str
    remedy: str
    mended: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    command: str = ""

    @property
    def id(self) -> str:
        """The rule's id."""
        return self.rule.id

    @property
    def level(self) -> Level:
        """The rule's level."""
        return self.rule.level

    def as_dict(self) -> dict[str, Any]:
        """Return everything a program may want to know, flat."""
        fields: dict[str, Any] = asdict(self)
        rule = fields.pop("rule")
        return {"level": self.level, **rule, **fields, "docs": self.rule.docs, "url": manual.address(self.rule.docs)}

    def snippet(self) -> str:
        """Return the mended settings as lines of a CACHES dict in Python; "" if there are none.

        >>> rule = Rule("storeroom.W001", "An example", "It is one.")
        >>> print(rule.broken("default", "…", "…", {"TIMEOUT": 300, "OPTIONS": {"max_entries": 9}}).snippet())
        "default": {
            "TIMEOUT": 300,
            "OPTIONS": {"max_entries": 9},
        },
        """
        return "\n".join(
            line
            for alias, settings in self.mended.items()
            for line in (
                f"{_literal(alias)}: {{",
                *(f"    {_literal(name)}: {_literal(value)}," for name, value in settings.items()),
                "},",
            )
        )

    def toml_snippet(self, table: str = "caches") -> str:
        """Return the mended settings as TOML, for a configuration whose aliases are in this table."""
        tables = (
            "\n".join([f"[{table}.{alias}]", *(f"{name} = {_toml(value)}" for name, value in settings.items())])
            for alias, settings in self.mended.items()
        )
        return "\n\n".join(tables)


def _literal(value: object) -> str:
    """Return a Python literal as the formatter would write it."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_literal(name)}: {_literal(inner)}" for name, inner in value.items()) + "}"
    return f"{value:_}" if type(value) is int else repr(value)


def _toml(value: object) -> str:
    """Return a TOML value; it has no null, and None is only ever a timeout here."""
    if value is None:
        return '"forever"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    return _literal(value)
