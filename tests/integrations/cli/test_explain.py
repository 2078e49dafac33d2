"""`storeroom explain`: the documentation of a finding, also where the package is installed without its checkout."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import storeroom
from storeroom import checks, manual
from storeroom.backends.base import BaseCache
from storeroom.cli import main

ROOT = Path(__file__).parents[3]
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]


@pytest.fixture
def called(capsys):
    def called(*arguments):
        code = main([*arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return called


@pytest.mark.parametrize("rule", checks.RULES.values(), ids=lambda rule: rule.id)
def test_each_finding_is_explained(called, rule):
    """A section begins with the finding's title, says how it is mended, and ends with its address."""
    code, output, _ = called("explain", rule.short_id)
    assert code == 0
    assert output.startswith(f"{rule.id}: {rule.title}\n")
    assert output.endswith(f"/common-mistakes.html#{rule.short_id.lower()}\n")
    assert "](" not in output


@pytest.mark.parametrize("word", ["w002", "storeroom.W002"])
def test_an_id_may_be_written_in_each_form(called, word):
    """Case and prefix do not matter; --json prints the section with the URL."""
    found = json.loads(called("explain", word, "--json")[1])
    assert (found["id"], found["level"]) == ("storeroom.W002", "warning")
    assert found["url"] == manual.address("docs/common-mistakes.md#w002")
    assert "A path does not turn local memory into a file cache" in found["text"]


def test_without_an_id_all_findings_are_listed(called):
    """One line for each."""
    assert (
        len(called("explain")[1].splitlines()) == len(json.loads(called("explain", "--json")[1])) == len(checks.RULES)
    )


def test_what_is_no_finding_is_told(called):
    """An unknown id exits with 2, with the nearest one, and the command for a key."""
    code, output, errors = called("explain", "W0O2")
    assert (code, output) == (2, "")
    assert "Did you mean 'W0" in errors
    assert "storeroom why KEY" in errors


def test_an_installed_package_explains_without_its_checkout(tmp_path):
    """The page lies in the package, as the wheel has it: nothing else of the repository is there."""
    (source, target), *_ = WHEEL["force-include"].items()
    package = Path(storeroom.__file__).parent
    shutil.copytree(package, tmp_path / "storeroom", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / source, tmp_path / target)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from storeroom.cli import main; sys.exit(main())"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "explain", "E001"],
        capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("storeroom.E001: A setting is wrong\n")


def test_an_error_that_names_a_page_names_its_url():
    """The addresses are those of the package's metadata, with the pages as in docs/."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    expected = f"{project['urls']['Documentation']}backends/custom.html"
    assert manual.named("docs/backends/custom.md") == f"docs/backends/custom.md ({expected})"
    with pytest.raises(TypeError, match=expected):
        type("Bare", (BaseCache,), {})
