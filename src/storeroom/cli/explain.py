"""``storeroom explain``: the section of the documentation on a finding of ``storeroom check``."""

import argparse
import posixpath
import re
from typing import Final

from storeroom import checks, manual
from storeroom.checks.finding import Rule
from storeroom.cli.exits import YES, UsageError
from storeroom.cli.output import columns, print_json, styled
from storeroom.wording import nearest

__all__ = ["add_arguments", "run"]

_SECTION: Final = r'<a id="{}"></a>\n(### .*?)(?=\n<a id=|\n## |\Z)'
_LINK: Final = re.compile(r"(?<!!)\[([^\]]+)\]\((?![a-z]+:)([^)\s]+)\)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of explain."""
    parser.epilog = """\
Prints the section of the documentation on a finding: what is wrong, how it
looks, how it is mended. The page comes with the package. Without an id it
lists all findings. For a key there is `storeroom why KEY`.

examples:
  storeroom explain W002
  storeroom explain | grep -i redis
"""
    parser.add_argument("id", metavar="ID", nargs="?", help="of a finding, such as W002")
    parser.add_argument("--json", action="store_true", help="print a JSON object, or a list of all findings")


def run(args: argparse.Namespace) -> int:
    """Print a section, or the list of findings."""
    if args.id is None:
        _list(as_json=args.json)
        return YES
    identifier = checks.full_id(args.id)
    if identifier is None:
        hint = nearest(args.id.upper(), [rule.short_id for rule in checks.RULES.values()])
        raise UsageError(
            f"There is no finding {args.id!r}.{hint} `storeroom explain` lists all; a key: storeroom why KEY."
        )
    rule = checks.RULES[identifier]
    section = _section(rule)
    if args.json:
        print_json({**_as_dict(rule), "why": rule.why, "text": section})
    else:
        head, _, text = section.partition("\n")
        print(f"{styled(head.removeprefix('### '), 'strong')}\n{text.rstrip()}")
        if url := manual.address(rule.docs):
            print(f"\n{url}")
    return YES


def _as_dict(rule: Rule) -> dict[str, str]:
    return {"id": rule.id, "level": rule.level, "title": rule.title, "url": manual.address(rule.docs)}


def _list(*, as_json: bool) -> None:
    if as_json:
        print_json(list(map(_as_dict, checks.RULES.values())))
    else:
        print(columns((rule.short_id, rule.level, rule.title) for rule in checks.RULES.values()))


def _section(rule: Rule) -> str:
    """Return the section in Markdown; its links lead to the published pages."""
    try:
        page = manual.findings()
    except FileNotFoundError as error:
        raise UsageError(
            f"The page of findings was not packed with this program: {manual.named(rule.docs)}."
        ) from error
    found = re.search(_SECTION.format(rule.short_id.lower()), page, re.DOTALL)
    return _LINK.sub(_linked, found[1] if found else f"### {rule.id}: {rule.title}\n\n{rule.why}")


def _linked(link: re.Match[str]) -> str:
    text, target = link.groups()
    if target.startswith("#"):
        return f"{text} (storeroom explain {target[1:].upper()})" if checks.full_id(target[1:]) else text
    path, hashed, anchor = target.partition("#")
    url = manual.address(f"{posixpath.normpath(f'docs/{path}')}{hashed}{anchor}")
    return f"{text} ({url})" if url else text
