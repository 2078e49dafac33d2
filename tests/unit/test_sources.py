"""Where CACHES comes from: each source, their order, and what is told of a broken one."""

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

from storeroom.exceptions import ConfigurationError
from storeroom.registry import sources
from storeroom.registry.aliases import read_caches
from storeroom.registry.sources import Source, find_source, read_file

LOCMEM = "storeroom.backends.locmem.LocMemCache"
FILE = "storeroom.backends.filebased.FileBasedCache"

CONFIG = f"""
[caches.default]
BACKEND = "{LOCMEM}"
LOCATION = "toml"

[caches.sessions]
backend = "{FILE}"
location = "var/sessions"
timeout = "1h"

[caches.sessions.options]
max_entries = "none"
"""
PYPROJECT = '[project]\nname = "x"\n\n' + CONFIG.replace("[caches", "[tool.storeroom.caches").replace(
    '"toml"', '"project"'
)


@pytest.fixture(autouse=True)
def program(tmp_path, monkeypatch):
    """A program in an empty directory, with no configuration of any kind; return that directory."""
    for name in [name for name in os.environ if name.startswith(("CACHE_URL", "STOREROOM_", "DJANGO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def django(monkeypatch, *, configured=True, **settings):
    """Put something into sys.modules that looks from outside like a running Django."""
    conf = types.ModuleType("django.conf")
    conf.ENVIRONMENT_VARIABLE = "DJANGO_SETTINGS_MODULE"
    conf.settings = types.SimpleNamespace(configured=configured, **settings)
    monkeypatch.setitem(sys.modules, "django.conf", conf)


# The order ----------------------------------------------------------------------------------------


def test_first_source_found_wins(program, monkeypatch):
    """Each is added in front of those that were there."""
    assert find_source().name == "the embedded default"
    monkeypatch.setenv("CACHE_URL", "locmem://url")
    assert find_source().caches["default"]["LOCATION"] == "url"
    (program / "pyproject.toml").write_text(PYPROJECT)
    assert find_source().caches["default"]["LOCATION"] == "project"
    (program / "other.toml").write_text(CONFIG)
    monkeypatch.setenv("STOREROOM_CONFIG", "other.toml")
    assert find_source().caches["default"]["LOCATION"] == "toml"
    django(monkeypatch, CACHES={"default": {"LOCATION": "django"}})
    assert find_source().caches["default"]["LOCATION"] == "django"


def test_source_tells_where_it_is(program, monkeypatch):
    (program / "cache.toml").write_text(CONFIG)
    monkeypatch.setenv("STOREROOM_CONFIG", str(program / "cache.toml"))
    assert str(find_source()) == f"cache.toml ({program / 'cache.toml'})"
    assert str(Source("somewhere", "", {})) == "somewhere"


def test_repr_of_a_source_tells_no_settings():
    assert "hunter2" not in repr(Source("name", "origin", {"default": {"LOCATION": "redis://:hunter2@h"}}))


# TOML -----------------------------------------------------------------------------------------------


def test_toml_file_is_read(program):
    (program / "cache.toml").write_text(CONFIG)
    source = read_file("cache.toml")
    assert source.caches["default"] == {"BACKEND": LOCMEM, "LOCATION": "toml"}
    assert source.caches["sessions"] == {
        "BACKEND": FILE,
        "LOCATION": "var/sessions",
        "TIMEOUT": "1h",
        "OPTIONS": {"max_entries": "none"},
    }
    assert source.directory == str(program)
    assert read_caches(source.caches)["sessions"].settings.options["max_entries"] is None


def test_path_in_a_toml_file_is_relative_to_the_file(program, monkeypatch):
    (program / "on_disk.py").write_text(
        "from storeroom.backends.dummy import DummyCache\nclass OnDisk(DummyCache): location_is_path = True\n"
    )
    monkeypatch.syspath_prepend(program)
    (program / "cache.toml").write_text(CONFIG.replace(FILE, "on_disk.OnDisk"))
    monkeypatch.chdir("/")
    source = read_file(program / "cache.toml")
    read = read_caches(source.caches, source.directory)
    assert read["sessions"].location == str(program / "var/sessions")
    assert read["default"].location == "toml"  # a name


def test_pyproject_toml_is_found_from_a_directory_below(program, monkeypatch):
    (program / "pyproject.toml").write_text(PYPROJECT)
    (program / "a/b").mkdir(parents=True)
    monkeypatch.chdir(program / "a/b")
    source = find_source()
    assert (source.name, source.origin) == ("pyproject.toml", str(program / "pyproject.toml"))
    assert source.directory == str(program)


def test_pyproject_toml_can_be_named():
    Path("pyproject.toml").write_text(PYPROJECT)
    assert read_file("pyproject.toml").caches["default"]["LOCATION"] == "project"


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "[project]\ndependencies = ['storeroom']\n", "not TOML"])
def test_nearest_pyproject_toml_ends_the_search(program, text, monkeypatch):
    """One without caches leaves it to the next source; one that never names Storeroom need not even be valid."""
    (program / "pyproject.toml").write_text(PYPROJECT)
    (program / "a").mkdir()
    (program / "a/pyproject.toml").write_text(text)
    monkeypatch.chdir(program / "a")
    assert find_source().name == "the embedded default"


def test_pyproject_toml_where_anybody_can_write_is_not_read(program):
    """In a directory like /tmp it may be somebody else's; one further down is found as ever."""
    (program / "pyproject.toml").write_text(PYPROJECT)
    program.chmod(0o1777)
    assert find_source().name == "the embedded default"
    program.chmod(0o777)
    assert find_source().name == "pyproject.toml"


def test_removed_current_directory_has_no_project(program, monkeypatch):
    (program / "gone").mkdir()
    monkeypatch.chdir(program / "gone")
    (program / "gone").rmdir()
    assert find_source().name == "the embedded default"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[caches.default", "cache.toml is not valid TOML: "),
        (b"a = '\xff'", "cache.toml is not valid TOML: "),
        ("", "cache.toml has no caches in it; expected a table [caches.default]."),
        ("[cache.default]", "cache.toml has 'cache', which does not exist. Did you mean 'caches'?"),
        ("[caches.a]\n[other]", "cache.toml has 'other', which does not exist."),
        ("[caches.a]\nTIMEOUT=1\ntimeout=2", "CACHES['a'] has TIMEOUT twice, in two spellings, in "),
    ],
)
def test_broken_toml_file_is_told(text, message, monkeypatch):
    Path("cache.toml").write_bytes(text.encode() if isinstance(text, str) else text)
    monkeypatch.setenv("STOREROOM_CONFIG", "cache.toml")
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        find_source()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[tool.storeroom.cache.default]",
            "[tool.storeroom] in {file} has 'cache', which does not exist. Did you mean",
        ),
        ("[tool]\nstoreroom = 5", "'storeroom' in {file} is 5; expected a table"),
        ("[tool.storeroom", "{file} is not valid TOML"),
    ],
)
def test_broken_pyproject_toml_is_told(program, text, message):
    (program / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(message.format(file=program / "pyproject.toml"))):
        find_source()


def test_table_that_is_none_is_told_when_it_is_checked():
    Path("cache.toml").write_text("caches = 5")
    with pytest.raises(ConfigurationError, match="CACHES is 5; expected a dict"):
        read_caches(read_file("cache.toml").caches)
    Path("cache.toml").write_text("caches.default = 5")
    with pytest.raises(ConfigurationError, match=r"CACHES\['default'\] is 5; expected a dict"):
        read_caches(read_file("cache.toml").caches)


def test_missing_file_is_told(monkeypatch):
    monkeypatch.setenv("STOREROOM_CONFIG", "nowhere.toml")
    message = r"STOREROOM_CONFIG is 'nowhere.toml', which cannot be read \(No such file or directory\); expected a TOML"
    with pytest.raises(ConfigurationError, match=message):
        find_source()
    with pytest.raises(ConfigurationError, match=r"^'nowhere.toml' cannot be read"):
        read_file("nowhere.toml")


# URLs --------------------------------------------------------------------------------------------------


def test_url_variables_give_an_alias_each(monkeypatch):
    monkeypatch.setenv("CACHE_URL", "locmem://main")
    monkeypatch.setenv("CACHE_URL_SESSIONS", "file:///var/cache/sessions?timeout=1h")
    monkeypatch.setenv("CACHE_URL_EMPTY", "")
    source = find_source()
    assert str(source) == "environment variables (CACHE_URL, CACHE_URL_SESSIONS)"
    assert {alias: written["LOCATION"] for alias, written in source.caches.items()} == {
        "default": "main",
        "sessions": "/var/cache/sessions",
    }


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"CACHE_URL_SESSIONS": "dummy://"}, "CACHE_URL_SESSIONS is set, but CACHE_URL, the alias 'default', is not;"),
        ({"CACHE_URL_A": "dummy://", "CACHE_URL_B": "dummy://"}, "CACHE_URL_A, CACHE_URL_B are set, but CACHE_URL,"),
        (
            {"CACHE_URL": "dummy://", "CACHE_URL_DEFAULT": "dummy://"},
            "CACHE_URL and CACHE_URL_DEFAULT both give the al",
        ),
        ({"CACHE_URL": "mongodb://:hunter2@h"}, "CACHE_URL is 'mongodb://***@h', whose scheme 'mongodb' is unknown."),
        ({"CACHE_URL": "dummy://", "CACHE_URL_B": "x"}, "CACHE_URL_B is 'x', which does not begin with a scheme"),
    ],
)
def test_wrong_url_variables_are_told(variables, message, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        find_source()


def test_empty_variables_count_as_unset(monkeypatch):
    monkeypatch.setenv("CACHE_URL", "")
    monkeypatch.setenv("STOREROOM_CONFIG", "")
    assert find_source().name == "the embedded default"


# Django --------------------------------------------------------------------------------------------------


def test_django_that_is_imported_but_not_set_up_is_no_source(monkeypatch):
    django(monkeypatch, configured=False)
    assert find_source().name == "the embedded default"


def test_django_with_a_settings_module_is_a_source(monkeypatch):
    django(monkeypatch, configured=False, CACHES={"default": {}}, SETTINGS_MODULE="mysite.settings")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    assert str(find_source()) == "Django's settings.CACHES (mysite.settings)"


def test_django_whose_settings_cannot_be_imported_is_told(monkeypatch):
    class Settings:
        configured = False

        @property
        def CACHES(self):  # noqa: N802 -- Django's name
            raise ModuleNotFoundError("No module named 'mysite'")

    django(monkeypatch)
    sys.modules["django.conf"].settings = Settings()
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    message = r"DJANGO_SETTINGS_MODULE is 'mysite.settings'.*\(No module named 'mysite'\).*or call storeroom.configure"
    with pytest.raises(ConfigurationError, match=message):
        find_source()


# The embedded default --------------------------------------------------------------------------------------


def test_embedded_default_is_a_bounded_file_cache(program, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(program / "cache"))
    source = find_source()
    alias = read_caches(source.caches)["default"]
    assert source.origin == alias.location == sources.program_directory()
    assert alias.backend.__name__ == "FileBasedCache"
    assert alias.settings.options["max_entries"] == 100_000
    assert alias.settings.options["max_bytes"] == 1024**3


SHOW = "from storeroom.registry.sources import program_directory; print(program_directory())"


def shown_by(*command, cwd):
    """Run a program that prints its directory; return the name of that."""
    environ = os.environ | {"XDG_CACHE_HOME": str(cwd / "cache"), "PYTHONPATH": str(Path(sources.__file__).parents[1])}
    run = subprocess.run([sys.executable, *command], cwd=cwd, env=environ, capture_output=True, text=True, check=True)
    directories = [Path(line) for line in run.stdout.splitlines()]
    assert {directory.parent for directory in directories} == {cwd / "cache/storeroom"}
    return [directory.name for directory in directories]


@pytest.mark.parametrize("command", [["report.py"], ["./report.py"], ["-m", "report"]])
def test_program_is_told_by_its_path(program, command):
    (program / "report.py").write_text(SHOW)
    (found,) = shown_by(*command, cwd=program)
    assert re.fullmatch("report-[0-9a-f]{8}", found)
    assert shown_by(program / "report.py", cwd=program) == [found]


def test_package_is_a_program(program):
    (program / "my pkg").mkdir()
    (program / "my pkg/__main__.py").write_text(SHOW)
    (found,) = shown_by("-m", "my pkg", cwd=program)
    assert re.fullmatch("my-pkg-[0-9a-f]{8}", found)
    assert shown_by("my pkg", cwd=program) == [found]


def test_programs_of_one_name_are_two_programs(program):
    for folder in ("a", "b"):
        (program / folder).mkdir()
        (program / folder / "main.py").write_text(SHOW)
    assert shown_by("a/main.py", cwd=program) != shown_by("b/main.py", cwd=program)


def test_interactive_and_one_line_programs_share_a_name(program):
    assert shown_by("-c", SHOW, cwd=program) == ["python"]


def test_spawned_child_is_the_same_program(program):
    """Even after the parent has gone elsewhere."""
    script = f"""
import multiprocessing, os

def show():
    {SHOW}

if __name__ == "__main__":
    os.chdir("/")
    show()
    child = multiprocessing.get_context("spawn").Process(target=show)
    child.start()
    child.join()
"""
    (program / "parent.py").write_text(
        script.replace("print(program_directory())", "print(program_directory(), flush=True)")
    )
    parent, child = shown_by("parent.py", cwd=program)
    assert parent == child


def test_finding_the_embedded_default_loads_what_it_needs_alone(program):
    """No TOML reader where there is no TOML, and nothing of asyncio."""
    code = (
        "import json, sys\n"
        "from storeroom.registry.sources import find_source\n"
        "find_source(); print(json.dumps(list(sys.modules)))"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(sources.__file__).parents[1])}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=program, env=environ, capture_output=True, text=True, check=True
    )
    assert {"tomllib", "asyncio", "storeroom.registry.urls"}.isdisjoint(json.loads(run.stdout))
