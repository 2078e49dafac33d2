"""The command ``storeroom``: look into a cache, change it, check its configuration.

The module of a command is imported when it is run, so that ``storeroom get`` starts as fast as it can.
``configuration`` leads from --config and --alias to a cache. Exit codes are an interface: see EXIT_CODES.
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any, Final, NamedTuple

from storeroom.cli.arguments import Unnamed
from storeroom.cli.exits import EXIT_CODES, INTERRUPTED, MISTAKE, NO_READER, exit_code
from storeroom.cli.output import plain
from storeroom.engines import Counters
from storeroom.exceptions import StoreroomError
from storeroom.registry import caches
from storeroom.storage.outages import no_answers

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """A command: its line in the list of commands, its module here, and the names of its two functions there."""

    summary: str
    module: str
    add_arguments: str = "add_arguments"  # takes a parser
    run: str = "run"  # takes the parsed arguments, and returns the exit code


COMMANDS: Final = {
    "check": Command("say what is wrong or risky in the configuration", "check"),
    "explain": Command("print the documentation of a finding of check", "explain"),
    "get": Command("print the value of a key", "entries", "add_get_arguments", "get"),
    "set": Command("store a value", "entries", "add_set_arguments", "set_value"),
    "delete": Command("remove keys", "entries", "add_delete_arguments", "delete"),
    "incr": Command("add to a number", "entries", "add_incr_arguments", "incr"),
    "ttl": Command("print the seconds that a key has left", "entries", "add_ttl_arguments", "ttl"),
    "why": Command("explain why a key is there, or is not", "why", "add_arguments", "why"),
    "keys": Command("list the keys", "contents", "add_keys_arguments", "keys"),
    "clear": Command("remove all entries", "contents", "add_clear_arguments", "clear"),
    "list": Command("list the embedded caches of this user", "embedded"),
    "stats": Command("show what all processes have counted", "stats"),
    "top": Command("watch the caches of all running processes", "top.command"),
    "prune": Command("remove expired entries now", "contents", "add_prune_arguments", "prune"),
    "createcachetable": Command("make the tables of database caches", "tables"),
    "advise": Command("say which numbers to write into the configuration", "advise"),
    "bench": Command("time the cache on this machine", "bench"),
    "demo": Command("watch a real workload being cached", "demo.command"),
}

_EXAMPLES: Final = """\
examples:
  storeroom check                         what is wrong, and how to mend it
  storeroom set greeting hello --timeout 5m
  storeroom get greeting
  storeroom stats --alias sessions
  storeroom keys user: --config mysite.settings

The configuration is looked for as by a program: STOREROOM_CONFIG, CACHE_URL,
the nearest pyproject.toml, else the embedded default. --config names another:
a TOML file, a Python module with CACHES in it, or a URL.
"""

_BLIND: Final = partial(argparse.RawDescriptionHelpFormatter, width=80)
"""Checks the arguments that a parser is given. One that lays out help asks for the terminal's width, and loads for that
``shutil``, with all its compressors."""


def main(argv: Sequence[str] | None = None, *, program: str = "storeroom") -> int:
    """Run the command line. Return the exit code, never raise for a mistake of the user.

    Args:
        argv: the arguments, without the program's name; those of this process by default.
        program: that name.
    """
    before = caches.swap(None)  # a command has a configuration of its own
    Counters.are_shared = False  # nor are its counts the project's
    try:
        return _run(sys.argv[1:] if argv is None else list(argv), program)
    except StoreroomError as error:
        print(f"storeroom: {plain(str(error))}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain when it flushes at exit. https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO_READER
    except SystemExit as leave:  # argparse, with its message printed
        return leave.code if isinstance(leave.code, int) else int(leave.code is not None)
    finally:
        caches.swap(before)
        Counters.are_shared = True


def _run(arguments: Sequence[str], program: str) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A key may hold characters that the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    parser = _parser(arguments, program)
    if not arguments:
        parser.print_help(sys.stderr)
        return MISTAKE
    args = parser.parse_args(arguments)
    command = COMMANDS[args.command]
    with no_answers():  # a person is to read that a server is out of reach, and not that nothing is there
        code: int = _function(command, command.run)(args)
    sys.stdout.flush()
    return code


def _function(command: Command, name: str) -> Any:
    """Return a function of a command's module, which is loaded now."""
    return getattr(import_module(f"storeroom.cli.{command.module}"), name)


def _parser(arguments: Sequence[str], program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program,
        description="Look into a cache, change it, check its configuration.",
        epilog=f"{_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=_BLIND,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions of storeroom and Python")
    _add_common(parser, alias=Unnamed("default"), config=None)
    # Accepted after the command too, without undoing an option before it.
    common = argparse.ArgumentParser(formatter_class=_BLIND, add_help=False, allow_abbrev=False)
    _add_common(common, alias=argparse.SUPPRESS, config=argparse.SUPPRESS)
    commands = parser.add_subparsers(prog=program, title="commands", dest="command", metavar="COMMAND", required=True)
    first = arguments[0] if arguments else ""
    for name in [first] if first in COMMANDS else COMMANDS:  # all of them where they may have to be listed
        command, is_meant = COMMANDS[name], name in arguments
        subparser = commands.add_parser(
            name,
            parents=[common] if is_meant else [],
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            formatter_class=_BLIND,
            add_help=is_meant,
            allow_abbrev=False,
        )
        if is_meant:
            _function(command, command.add_arguments)(subparser)
    for each in (parser, *commands.choices.values()):
        each.formatter_class = argparse.RawDescriptionHelpFormatter
    return parser


def _add_common(parser: argparse.ArgumentParser, *, alias: str, config: str | None) -> None:
    source = "a TOML file, a module such as mysite.settings or mysite/settings.py, or a URL: file:///var/cache/app"
    parser.add_argument("--alias", "-a", metavar="NAME", default=alias, help='which cache (default: "default")')
    parser.add_argument("--config", "-c", metavar="SOURCE", default=config, help=source)


class _Version(argparse.Action):
    """Prints the version, which is looked up only then: reading a package's metadata takes a while."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415 -- as the class says

        hot_path = import_module("storeroom.backends.locmem.hot_path")
        try:
            found = version("storeroom")
        except PackageNotFoundError:  # run from a checkout
            found = "(not installed)"
        form = "compiled" if hot_path.IS_COMPILED else "pure Python"
        print(f"storeroom {found} ({form}) on Python {sys.version.split()[0]}")
        parser.exit()
