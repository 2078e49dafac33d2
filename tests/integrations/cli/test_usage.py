"""Help, wrong usage, exit codes, and the modules of commands."""

import subprocess
import sys

import pytest

import storeroom.cli
from storeroom.backends.locmem.hot_path import IS_COMPILED
from storeroom.cli import COMMANDS, main
from storeroom.cli.exits import exit_code
from storeroom.exceptions import (
    ConfigurationError,
    KeyNotFoundError,
    SerializationError,
    StorageError,
    StoreroomError,
    ValueTypeError,
)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_fits_a_terminal(command, capsys):
    """Every line of every --help has at most 80 characters, and each command explains itself."""
    assert main([*command, "--help"]) == 0
    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if len(line) > 80] == []
    assert output.startswith(f"usage: storeroom{''.join(f' {word}' for word in command)} ")


def test_help_tells_the_exit_codes(capsys):
    """--help lists all exit codes."""
    main(["--help"])
    output = capsys.readouterr().out
    for code in (0, 1, 2, 3, 130):
        assert f"\n  {code:<4} " in output


def test_version_names_storeroom_and_python(capsys):
    """--version names the versions of Storeroom and of Python, and tells whether local memory is compiled."""
    assert main(["--version"]) == 0
    form = "compiled" if IS_COMPILED else "pure Python"
    assert capsys.readouterr().out.endswith(f" ({form}) on Python {sys.version.split()[0]}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "commands:"),
        (["--alias", "default"], "the following arguments are required: COMMAND"),
        (["gett", "key"], "invalid choice: 'gett'"),
        (["get"], "the following arguments are required: KEY"),
        (["set", "key", "value", "--time", "3"], "unrecognized arguments: --time 3"),
        (["bench", "--threads", "0"], "argument --threads: invalid"),
        (["incr", "key", "many"], "argument DELTA: invalid"),
    ],
)
def test_wrong_usage_exits_with_2(arguments, message, capsys):
    """An unknown command, option or value, or a missing one, is named and exits with 2."""
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_command_loads_only_its_own_module():
    """A command imports its own module of the command line, and no other's."""
    code = (
        "import sys; from storeroom.cli import main; main(['ttl', 'key', '--config', 'dummy://']); "
        "print(*sorted(name for name in sys.modules if name.startswith('storeroom.c')))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert "storeroom.cli.entries" in loaded
    assert {"storeroom.checks", "storeroom.cli.bench", "storeroom.cli.check", "storeroom.cli.demo"} & loaded == set()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyNotFoundError(), 1),
        (ConfigurationError(), 2),
        (ValueTypeError(), 2),
        (StorageError(), 3),
        (SerializationError(), 3),
        (StoreroomError(), 3),
    ],
)
def test_exit_codes_of_errors(error, code):
    """A missing key exits with 1, a mistake of the caller with 2, and a failure of the storage with 3."""
    assert exit_code(error) == code


def test_every_command_has_its_functions():
    """Each command's module has the functions that the table of commands names."""
    for command in COMMANDS.values():
        module = __import__(f"{storeroom.cli.__name__}.{command.module}", fromlist=["*"])
        assert callable(getattr(module, command.run))
        assert callable(getattr(module, command.add_arguments))
