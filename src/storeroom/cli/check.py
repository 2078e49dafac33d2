"""``storeroom check``: print the mistakes and risks in the configuration, and the way to mend them."""

import argparse
import os
import shlex
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

from storeroom import checks, manual
from storeroom.checks import Context, Finding
from storeroom.checks.servers import told_seconds
from storeroom.checks.subject import dotted_path
from storeroom.cli.configuration import find
from storeroom.cli.exits import MISTAKE, NO, YES, UsageError
from storeroom.cli.measured import advised
from storeroom.cli.output import columns, count_of, paragraph, plain, print_json, styled
from storeroom.cli.progress import progress
from storeroom.registry.program import find_owner
from storeroom.registry.source import DJANGO, EMBEDDED_DEFAULT, Source
from storeroom.registry.sources import passed_over, table_of
from storeroom.storage.probes import Probe, ServerProbe
from storeroom.wording import masked, nearest

__all__ = ["SILENCED_VARIABLE", "add_arguments", "run"]

SILENCED_VARIABLE: Final = "STOREROOM_SILENCED_CHECKS"
"""Environment variable with ids that are not reported, separated by commas or spaces."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of check."""
    parser.epilog = f"""\
Servers are asked how they are, each on a connection of its own, which changes
nothing there; --offline leaves that out. No cache is opened, but one with
OPTIONS["advise"], for advice that a program has left there. Nothing is written.
That several processes serve a site is known from --processes, WEB_CONCURRENCY
and the like, or Django's settings.

The exit code is 0 if nothing was found, 1 if only warnings were, 2 if errors
were. An id is silenced by --silence, or by the environment variable
{SILENCED_VARIABLE}.

examples:
  storeroom check
  storeroom check --offline --processes 4
  storeroom check --config mysite.settings --silence W010
"""
    parser.add_argument("--processes", type=int, metavar="N", help="how many processes serve the site")
    silence = "do not report this id (may be repeated)"
    parser.add_argument("--silence", action="append", default=[], metavar="ID", help=silence)
    parser.add_argument("--offline", action="store_true", help="look at the configuration alone, and ask no server")
    timeout = f"how long to wait for each server (default: {checks.PATIENCE:g})"
    parser.add_argument("--timeout", type=_seconds, default=checks.PATIENCE, metavar="SECONDS", help=timeout)
    parser.add_argument("--json", action="store_true", help="print a JSON object")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return seconds


def run(args: argparse.Namespace) -> int:
    """Check the configuration that is named or found."""
    named = find(args.config)
    caches = named.source.caches
    if not isinstance(caches, Mapping):
        raise UsageError(f"{named.source} has {type(caches).__name__} as CACHES; expected a dict.")
    silenced = _silenced(args.silence)
    context = replace(Context.here(processes=args.processes), directory=named.source.directory)
    if named.settings is not None:
        context = context.with_settings(named.settings)
    with progress("Asking the servers"):
        probes = {} if args.offline else checks.probe(caches, context=context, seconds=args.timeout)
    everything = checks.run(caches, context=context, probes=probes)
    findings = [finding for finding in everything if finding.id not in silenced]
    others = passed_over() if args.config is None else []
    advice = [] if args.offline else list(advised(named.source))
    if args.json:
        print_json({"passed_over": others, **_report(named.source, probes, findings), "advice": advice})
    else:
        _print_source(named.source, others)
        _print(named.source, probes, findings, len(everything) - len(findings))
        _print_advice(advice)
    return (MISTAKE if findings[0].level == "error" else NO) if findings else YES


def _silenced(words: list[str]) -> set[str]:
    silenced = set()
    for word in " ".join([*words, os.environ.get(SILENCED_VARIABLE, "")]).replace(",", " ").split():
        identifier = checks.full_id(word)
        if identifier is None:
            raise UsageError(f"There is no check {word!r} to silence.{nearest(word, checks.RULES)}")
        silenced.add(identifier)
    return silenced


def _aliases(source: Source) -> Iterator[tuple[str, str, str]]:
    """Yield name, backend and location of each alias, as far as it has them."""
    for name, alias in source.caches.items():
        written = alias if isinstance(alias, Mapping) else {}
        location = masked(written.get("LOCATION", ""))
        shown = ", ".join(map(str, location)) if isinstance(location, list) else str(location)
        yield plain(str(name)), plain(dotted_path(written.get("BACKEND", ""))), plain(shown)


def _report(source: Source, probes: Mapping[str, Probe], findings: list[Finding]) -> dict[str, Any]:
    return {
        "source": {"name": source.name, "origin": source.origin},
        "aliases": [
            {"alias": name, "backend": backend, "location": location} for name, backend, location in _aliases(source)
        ],
        "servers": [
            {"alias": name, **_server_as_dict(server)} for name, probe in probes.items() for server in probe.servers
        ],
        "errors": sum(finding.level == "error" for finding in findings),
        "warnings": sum(finding.level == "warning" for finding in findings),
        "findings": [finding.as_dict() for finding in findings],
    }


def _server_as_dict(server: ServerProbe) -> dict[str, Any]:
    """Return the answers of a server; durations in seconds."""
    fields = asdict(server)
    endpoint = fields.pop("endpoint")
    return {"address": endpoint["address"], **fields, "latency": server.latency}


def _print_source(source: Source, others: list[str]) -> None:
    """Print the configuration in force, and those that are there as well."""
    print(f"{styled('Configuration:', 'strong')} {plain(str(source))}")
    for other in others:
        print(f"{styled('Passed over:', 'strong')} {plain(other)}")
    if source.name == EMBEDDED_DEFAULT:
        owner = plain(str(find_owner()))
        print(f"Nothing is configured here. Each project then has a cache of its own; this is that of {owner}.")
    if source.name not in {"--config", DJANGO} and os.environ.get("DJANGO_SETTINGS_MODULE"):
        print(f"Django's own settings are checked by: --config {os.environ['DJANGO_SETTINGS_MODULE']}", file=sys.stderr)


def _print(source: Source, probes: Mapping[str, Probe], findings: list[Finding], silenced: int) -> None:
    print(f"\n{columns(_aliases(source), yields=2)}")
    answers = [(name, *row) for name, probe in probes.items() for row in _answers(probe)]
    if answers:
        print(f"\n{styled('Servers:', 'strong')}\n\n{columns(answers, yields=1)}")
    rights = [(name, shlex.join(words)) for name, probe in probes.items() if (words := _rights(probe))]
    if rights:
        print(f"\n{styled('Rights that suffice:', 'strong')}\n\n{columns(rights)}")
    table = table_of(source.name) if source.name.endswith(".toml") else None
    for finding in findings:
        print(f"\n{_described(finding, table=table)}")
    print(f"\n{_summary(findings, silenced)}")


def _print_advice(advice: list[Mapping[str, Any]]) -> None:
    """Print the settings that the traffic of a running program asks for; that they are others is no finding."""
    for change in advice:
        told = f"{change['setting']}: {change['before']!r} -> {change['after']!r}. {change['effect']}."
        print(f"\n{styled('Advice', 'strong')} ({plain(change['alias'])}), by traffic: see storeroom advise")
        print(paragraph("write", told))


def _answers(probe: Probe) -> Iterator[tuple[str, str, str]]:
    """Yield address, role or product, and answer of each server."""
    if probe.unasked:
        yield "", "", f"not asked: {probe.unasked}"
    for server in probe.servers:
        product = f"{server.product} {server.version}".strip()
        state = "answers, and says no" if server.is_refusal else "out of reach"
        latency = "" if server.latency is None else told_seconds(server.latency)
        yield server.name, product, state if server.failure else latency


def _rights(probe: Probe) -> tuple[str, ...]:
    """Return the words of the rule by which a user may do all that a cache does at its servers."""
    return next((server.rights for server in probe.servers if server.rights), ())


def _described(finding: Finding, *, table: str | None) -> str:
    alias = f" ({finding.alias})" if finding.alias is not None else ""
    lines = [
        f"{styled(f'{finding.level} {finding.id}', finding.level)}{alias}: {styled(finding.rule.title, 'strong')}",
        paragraph("what", finding.what),
        paragraph("why", finding.rule.why),
    ]
    if finding.remedy:
        lines.append(paragraph("mend", finding.remedy))
    mended = finding.command or (finding.snippet() if table is None else finding.toml_snippet(table))
    if mended:
        lines += ["", *(f"            {line}".rstrip() for line in mended.splitlines()), ""]
    lines.append(paragraph("more", f"storeroom explain {finding.rule.short_id}"))
    if url := manual.address(finding.rule.docs):
        lines.append(paragraph("", url))
    return "\n".join(lines)


def _summary(findings: list[Finding], silenced: int) -> str:
    said = styled("Nothing is wrong.", "good")
    if findings:
        errors = sum(finding.level == "error" for finding in findings)
        counts = [(errors, "error"), (len(findings) - errors, "warning")]
        said = " and ".join(styled(count_of(number, level), level) for number, level in counts if number) + "."
    return f"{said} ({count_of(silenced, 'finding')} silenced.)" if silenced else said
