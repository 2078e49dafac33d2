"""``manage.py storeroom``: the command line of Storeroom, on the caches of this project."""

import argparse
import contextlib
import sys
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError, CommandParser

from storeroom.cli import COMMANDS, main

__all__ = ["Command"]

_LINES: Final = "\n".join(f"  {name:<18}{command.summary}" for name, command in COMMANDS.items())


class Command(BaseCommand):
    """Runs a command of ``storeroom`` with its arguments; ``manage.py storeroom get --help`` tells of one."""

    help = "Look into the caches of this project, change them, check them."
    requires_system_checks: list[str] = []  # `storeroom check` tells of the same, and a wrong alias may be looked into

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        """Return a parser that lists the commands."""
        terms = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": f"commands:\n{_LINES}"}
        return super().create_parser(prog_name, subcommand, **terms, **kwargs)

    def run_from_argv(self, argv: list[str]) -> None:
        """Take options before the command for Storeroom's, too."""
        super().run_from_argv([*argv[:2], "--", *argv[2:]])

    def add_arguments(self, parser: CommandParser) -> None:
        """Take all that follows for Storeroom's own."""
        parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="COMMAND", help="with its arguments")

    def handle(self, *_: str, **options: Any) -> None:
        """Run the command; leave with its exit code, or raise CommandError with it if a program has called."""
        arguments = _without_djangos(options["arguments"])
        with contextlib.ExitStack() as stack:
            for name, redirect in (("stdout", contextlib.redirect_stdout), ("stderr", contextlib.redirect_stderr)):
                if options.get(name) is not None:
                    stack.enter_context(redirect(options[name]))
            code = main(arguments, program="manage.py storeroom")
        if code and self._called_from_command_line:
            sys.exit(code)
        if code:
            raise CommandError(f"storeroom {' '.join(arguments)} has ended with exit code {code}.", returncode=code)


def _without_djangos(arguments: list[str]) -> list[str]:
    """Leave out the options that Django has carried out already, wherever they stand, and run_from_argv()'s dashes."""
    arguments = arguments[1:] if arguments[:1] == ["--"] else arguments
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings")
    parser.add_argument("--pythonpath")
    return parser.parse_known_args(arguments)[1]
