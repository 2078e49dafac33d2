"""`storeroom list`, `clear --program` and `prune --all`: the embedded caches of this user."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storeroom.cli import main
from storeroom.cli.output import columns
from storeroom.cli.progress import progress
from tests.integrations.cli.shell import on_terminal

PROGRAM = """
from storeroom import cache
for number in range(40):
    cache.set(number, "x" * 50_000, timeout=0.001 if number else None)
"""


def run_program(folder, *, marker=None):
    """Run a program in a folder: it stores 40 entries in its embedded cache, of which one is not over at once."""
    Path(folder).mkdir()
    if marker:
        Path(folder, marker).touch()
    Path(folder, "report.py").write_text(PROGRAM)
    subprocess.run([sys.executable, f"{folder}/report.py"], check=True, timeout=60)


@pytest.fixture
def called(capsys):
    def called(*arguments):
        code = main([*arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


@pytest.mark.slow
def test_list_shows_each_embedded_cache(called):
    """Each with its program, which the first that uses it notes, its entries, the disk space and the last use."""
    assert called("list") == (1, "This user has no embedded caches.\n", "")
    run_program("shop", marker="pyproject.toml")
    run_program("alone")
    here = Path.cwd()
    code, output, _ = called("list", "--json")
    assert code == 0
    found = {each["program"]: each for each in json.loads(output)}
    assert sorted(found) == [f"program {here}/alone/report.py", f"project {here}/shop"]
    shop = found[f"project {here}/shop"]
    assert shop["name"].startswith("shop-")
    assert not shop["is_abandoned"]
    assert shop["disk_bytes"] > 50_000
    _, output, _ = called("list")
    head, *rows = [line.split() for line in output.splitlines()]
    assert head == ["name", "entries", "on", "disk", "last", "use", "program"]
    assert [row[0].partition("-")[0] for row in rows] == ["report", "shop"]
    assert all("just now" in line for line in output.splitlines()[1:])
    Path("alone/report.py").unlink()
    assert "alone/report.py (gone)" in called("list")[1]
    shown = on_terminal("list")[1]
    assert max(map(len, shown.splitlines())) <= 80
    assert "…" in shown


@pytest.mark.slow
def test_clear_and_prune_of_embedded_caches_give_the_disk_space_back(called):
    """`prune --all` removes what is over in each; `clear --program` all of one; their room on the disk is free then."""
    run_program("shop", marker="pyproject.toml")
    before = json.loads(called("list", "--json")[1])[0]["disk_bytes"]
    code, output, _ = called("prune", "--all", "--json")
    assert code == 0
    (pruned,) = json.loads(output).values()
    assert 0 < pruned["entries"] < 40
    (shop,) = json.loads(called("list", "--json")[1])
    assert shop["entries"] == 1
    assert not sys.platform.startswith("linux") or shop["disk_bytes"] < before - pruned["entries"] * 40_000
    code, output, _ = called("clear", "--program", "shop", "--yes")
    assert code == 0
    assert output.startswith("The cache 'shop-")
    assert json.loads(called("list", "--json")[1])[0]["entries"] == 0


def test_a_name_that_leads_to_no_embedded_cache_is_told(called):
    """`clear --program` of an unknown name exits with 2."""
    code, output, errors = called("clear", "--program", "shop", "--yes")
    assert (code, output) == (2, "")
    assert "There is no embedded cache 'shop'." in errors


def test_a_command_notes_no_program(called):
    """The command line looks into caches, and is no program that has one."""
    assert called("keys")[0] == 0
    assert called("list")[0] == 1 or json.loads(called("list", "--json")[1])[0]["program"] is None


def test_columns_yield_on_a_narrow_terminal_alone(monkeypatch):
    """On a pipe nothing is cut; on a terminal the column that yields loses its beginning."""
    rows = [("name", "p" * 60 + "end"), ("b", "short")]
    assert columns(rows, yields=1).splitlines()[0].endswith("pend")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    lines = columns(rows, yields=1).splitlines()
    assert max(map(len, lines)) == 40
    assert lines[0].startswith("  name  …")
    assert lines[0].endswith("pend")


@pytest.mark.slow
def test_a_long_task_shows_that_it_goes_on(monkeypatch, capsys):
    """On a terminal, something that takes longer than a second tells for how long it has been under way."""
    with progress("Clearing"):
        time.sleep(1.2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress("Clearing"):
        time.sleep(1.2)
    assert "Clearing: 1 s" in capsys.readouterr().err
