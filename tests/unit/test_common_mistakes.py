"""docs/common-mistakes.md against the code: a section for each rule, in the words of the rule.

test_docs.py runs the code of the page, and compares the output of `storeroom check`.
"""

import re
from pathlib import Path

import pytest

from storeroom import checks, manual

PAGE = Path(__file__).parents[2] / manual.FINDINGS
TEXT = PAGE.read_text("utf-8")

SECTIONS = dict(re.findall(r'<a id="([ew]\d+)"></a>\n(### .*?)(?=\n<a id=|\n## |\Z)', TEXT, re.DOTALL))

NOT_MENDED_BY_SETTINGS = {"e009", "e012", "w011", "w023", "w024", "w025", "w026"}
"""Rules whose sections mend nothing in the configuration."""

IN_SURROUNDINGS = {"e004", "e005", "w011", "w012", "w014"}
"""Rules that need a directory or a mount."""

ON_SERVERS = {
    rule.docs.partition("#")[2] for rule in vars(checks.servers).values() if isinstance(rule, checks.finding.Rule)
}
"""Rules that need the answer of a server."""


def words(text: str) -> str:
    """Return the text with its white space and wrapping evened out."""
    return " ".join(text.split())


def python_blocks(section: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def settings(code: str) -> dict[str, object]:
    """Run a block; return the names that it leaves."""
    names: dict[str, object] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    return names


def test_there_is_a_section_for_each_rule_and_no_other():
    """The page has exactly one section for each rule of the checks."""
    assert {f"storeroom.{name.upper()}" for name in SECTIONS} == set(checks.RULES)


def test_the_list_has_each_rule_in_order():
    """The list at the top links to each rule with its title, in the order of the rules."""
    listed = re.findall(r"^\| \[([EW]\d+)\]\(#([ew]\d+)\) \| (.+) \|$", TEXT, re.MULTILINE)
    expected = [(rule.id[10:], rule.id[10:].lower(), rule.title) for rule in checks.RULES.values()]
    assert listed == expected


@pytest.mark.parametrize("rule", checks.RULES.values(), ids=lambda rule: rule.id)
def test_a_section_shows_the_output_of_check(rule):
    """A section shows the rule's title, level, reason and link as `storeroom check` prints them."""
    section = SECTIONS[rule.docs.partition("#")[2]]
    assert section.startswith(f"### {rule.id}: {rule.title}\n")
    shown = words(section)
    assert f"{rule.level} {rule.id} (" in shown
    assert f"why {rule.why}" in shown
    assert f"more storeroom explain {rule.short_id}" in shown


@pytest.mark.parametrize("name", sorted(SECTIONS.keys() - IN_SURROUNDINGS - ON_SERVERS))
def test_the_mistake_of_a_section_is_found(name):
    """The first code of a section breaks its rule, and the finding's text stands in the section."""
    written = settings(python_blocks(SECTIONS[name])[0])
    context = checks.Context(several_processes="WEB_CONCURRENCY is 4" if name == "w001" else "")
    found = checks.run(written["CACHES"], context=context.with_settings(_Module(written)))
    finding = next(finding for finding in found if finding.id == f"storeroom.{name.upper()}")
    if name != "w015":  # its text names the current directory
        assert f"what {finding.what}" in words(SECTIONS[name])


@pytest.mark.parametrize("name", sorted(SECTIONS.keys() - NOT_MENDED_BY_SETTINGS))
def test_the_mended_configuration_has_no_mistake(name):
    """The second code of a section no longer breaks its rule."""
    _, mended = python_blocks(SECTIONS[name])
    written = settings(mended)
    context = checks.Context().with_settings(_Module(written))
    found = {finding.id for finding in checks.run(written["CACHES"], context=context)}
    assert f"storeroom.{name.upper()}" not in found
    # Not faults of the page: a backend of a later version, and a user who may not write to /var/cache.
    assert found <= {"storeroom.E001", "storeroom.E002"}


class _Module:
    """Settings as attributes, as in a module."""

    def __init__(self, names: dict[str, object]) -> None:
        self.__dict__.update(names)
