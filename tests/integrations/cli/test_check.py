"""`storeroom check` without servers: findings, silenced checks, formats, exit codes."""

import json
import sys
from pathlib import Path

import pytest

from storeroom import checks
from storeroom.cli import main

RIGHT = "[caches.default]\nBACKEND = 'storeroom.backends.locmem.LocMemCache'\n"


@pytest.mark.parametrize(
    ("settings", "code", "summary"),
    [
        ("", 0, "Nothing is wrong."),
        ("TIMEOUT = 0\n", 1, "1 warning."),
        ("TIMEOUT = 'x'\n", 2, "1 error."),
        ("LOCATION = '/x'\nTIMEOUT = 0\nOPTIONS = { a = 1, b = 2 }\n", 2, "2 errors and 1 warning."),
    ],
)
def test_check_exits_by_its_findings(run, settings, code, summary):
    """`check` exits with 0, with 1 after warnings, and with 2 after errors, and its last line sums them up."""
    Path("caches.toml").write_text(RIGHT + settings)
    exited, output, errors = run("check", config="caches.toml")
    assert exited == code
    assert output.splitlines()[-1] == summary
    assert errors == ""


def test_check_shows_source_and_aliases_without_passwords(run):
    """`check` names the configuration's file and each alias's class and location, and no password."""
    Path("caches.toml").write_text(
        RIGHT + "[caches.server]\nBACKEND = 'django.core.cache.backends.redis.RedisCache'\n"
        "LOCATION = ['redis://app:hunter2@a:6379', 'redis://b:6379']\nOPTIONS = { password = 'hunter2' }\n"
    )
    _, output, _ = run("check", "--offline", config="caches.toml")
    lines = output.splitlines()
    assert lines[0] == f"Configuration: caches.toml ({Path.cwd()}/caches.toml)"
    assert lines[2] == "  default  storeroom.backends.locmem.LocMemCache"
    assert lines[3] == "  server   django.core.cache.backends.redis.RedisCache  redis://***@a:6379, redis://b:6379"
    assert "hunter2" not in output
    assert "hunter2" not in run("check", "--offline", "--json", config="caches.toml")[1]


def test_check_writes_the_mended_configuration_in_its_own_language(run, tmp_path):
    """`check` shows the mended setting as TOML for a TOML file, and as Python for all else."""
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\n")
    assert '[caches.default]\n            TIMEOUT = "forever"\n' in run("check", config="caches.toml")[1]
    Path("pyproject.toml").write_text(RIGHT.replace("[caches", "[tool.storeroom.caches") + "TIMEOUT = 0\n")
    assert "[tool.storeroom.caches.default]\n" in run("check", config="pyproject.toml")[1]
    output = run("check", config="locmem://?timeout=0")[1]
    assert '            "default": {\n                "TIMEOUT": None,\n            },\n' in output


def test_check_prints_a_finding_in_full(run):
    """`check` prints a finding's title, setting, reason, remedy, command and page, in lines of 80 characters."""
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\n")
    _, output, _ = run("check", config="caches.toml")
    rule = checks.RULES["storeroom.W004"]
    words = " ".join(output.split())
    assert f"warning storeroom.W004 (default): {rule.title} what TIMEOUT is 0. why {rule.why} mend For" in words
    assert "more storeroom explain W004 https://storeroom.example/common-mistakes.html#w004" in words
    assert max(map(len, output.splitlines()[3:])) <= 80


def test_check_as_json(run):
    """`check --json` has the source, the aliases, the counts and each finding with its mended setting."""
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\n")
    code, output, _ = run("check", "--json", config="caches.toml")
    assert code == 1
    report = json.loads(output)
    assert report["source"]["name"] == "caches.toml"
    assert report["aliases"] == [
        {"alias": "default", "backend": "storeroom.backends.locmem.LocMemCache", "location": ""}
    ]
    assert (report["errors"], report["warnings"]) == (0, 1)
    (finding,) = report["findings"]
    assert (finding["id"], finding["mended"]) == ("storeroom.W004", {"default": {"TIMEOUT": None}})


@pytest.mark.parametrize("by", ["option", "variable"])
def test_check_leaves_out_silenced_findings(run, monkeypatch, by):
    """Findings named by --silence or STOREROOM_SILENCED_CHECKS are left out, and their number is told."""
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\nLOCATION = '/x'\n")
    if by == "variable":
        monkeypatch.setenv("STOREROOM_SILENCED_CHECKS", "W004, storeroom.W002")
    arguments = ["--silence", "w004", "--silence", "storeroom.W002"] if by == "option" else []
    code, output, _ = run("check", *arguments, config="caches.toml")
    assert code == 0
    assert output.splitlines()[-1] == "Nothing is wrong. (2 findings silenced.)"


def test_check_refuses_to_silence_an_unknown_check(run):
    """--silence with the name of no check exits with 2 and names it."""
    code, _, errors = run("check", "--silence", "W0O4")
    assert code == 2
    assert errors.startswith("storeroom: There is no check 'W0O4' to silence.")


def test_check_is_told_of_processes(run, monkeypatch):
    """`check` knows the number of processes from --processes, or else from the environment."""
    Path("caches.toml").write_text(RIGHT)
    assert run("check", config="caches.toml")[0] == 0
    assert "and 4 processes serve the site." in run("check", "--processes", "4", config="caches.toml")[1]
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert "storeroom.W001" in run("check", config="caches.toml")[1]
    assert run("check", "--processes", "1", config="caches.toml")[0] == 0


def test_check_reads_djangos_settings_from_their_module(run, monkeypatch):
    """`check` reads Django's other settings from the module that --config names."""
    Path("web_settings.py").write_text(
        "INSTALLED_APPS = []\nDEBUG = True\nSESSION_ENGINE = 'django.contrib.sessions.backends.cache'\n"
        "CACHES = {'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}}\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    assert "storeroom.W016" in run("check", config="web_settings")[1]


def test_check_takes_relative_paths_in_a_file_from_its_folder(run):
    """A relative LOCATION in a TOML file is taken from the file's folder, and is no mistake."""
    text = "[caches.default]\nBACKEND = 'storeroom.backends.filebased.FileBasedCache'\nLOCATION = 'cache'\n"
    Path("caches.toml").write_text(text + "OPTIONS = { max_entries = 1000 }\n")
    assert run("check", config="caches.toml")[0] == 0


def test_check_explains_a_missing_configuration(capsys, monkeypatch):
    """Without a configuration check explains the embedded default, and names a site's settings to check instead."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)  # another test may have loaded it
    assert main(["check"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Configuration: the embedded default")
    assert "Each project then has a cache of its own; this is that of the " in captured.out
    assert captured.err == "Django's own settings are checked by: --config mysite.settings\n"


def test_check_tells_what_was_passed_over(capsys, monkeypatch):
    """A file in the working directory that the environment wins over is told, in both formats."""
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)
    monkeypatch.setenv("CACHE_URL", "locmem://")
    Path("pyproject.toml").write_text(RIGHT.replace("[caches", "[tool.storeroom.caches"))
    file = f"pyproject.toml ({Path.cwd()}/pyproject.toml)"
    assert main(["check"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Configuration: environment variables (CACHE_URL)\nPassed over: {file}\n")
    assert main(["check", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passed_over"] == [file]


def test_check_survives_a_caches_that_is_no_dict(run):
    """A configuration whose caches are no dict exits with 2, without a traceback."""
    Path("caches.toml").write_text("caches = 5\n")
    code, _, errors = run("check", config="caches.toml")
    assert code == 2
    assert "Traceback" not in errors
