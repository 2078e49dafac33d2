"""The sources of CACHES: each of them, their order, and the error for a broken one."""

import json
import os
import re
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest

from storeroom.exceptions import ConfigurationError
from storeroom.registry import sources, user_folder
from storeroom.registry.aliases import read_caches
from storeroom.registry.source import Source
from storeroom.registry.sources import find_source, read_file

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
    """Put a stand-in into sys.modules that looks from outside like a running Django."""
    conf = types.ModuleType("django.conf")
    conf.ENVIRONMENT_VARIABLE = "DJANGO_SETTINGS_MODULE"
    conf.settings = types.SimpleNamespace(configured=configured, **settings)
    monkeypatch.setitem(sys.modules, "django.conf", conf)


# The order ----------------------------------------------------------------------------------------


def test_first_source_found_wins(program, monkeypatch):
    """Django counts before STOREROOM_CONFIG, that before CACHE_URL, pyproject.toml and the embedded default."""
    assert find_source().name == "the embedded default"
    (program / "pyproject.toml").write_text(PYPROJECT)
    assert find_source().caches["default"]["LOCATION"] == "project"
    monkeypatch.setenv("CACHE_URL", "locmem://url")
    assert find_source().caches["default"]["LOCATION"] == "url"
    (program / "other.toml").write_text(CONFIG)
    monkeypatch.setenv("STOREROOM_CONFIG", "other.toml")
    assert find_source().caches["default"]["LOCATION"] == "toml"
    django(monkeypatch, CACHES={"default": {"LOCATION": "django"}})
    assert find_source().caches["default"]["LOCATION"] == "django"


def test_sources_that_are_passed_over_are_told(program, monkeypatch):
    """Beside the first source each further one is told, also where it is wrong."""
    assert sources.passed_over() == []
    (program / "pyproject.toml").write_text(PYPROJECT)
    assert sources.passed_over() == []
    monkeypatch.setenv("CACHE_URL", "locmem://url")
    assert sources.passed_over() == [f"pyproject.toml ({program / 'pyproject.toml'})"]
    (program / "pyproject.toml").write_text("[tool.storeroom")
    (wrong,) = sources.passed_over()
    assert "is not valid TOML" in wrong
    assert find_source().name == "environment variables"


def test_source_tells_where_it_is(program, monkeypatch):
    """A source shows its name and the path of its file, if it has one."""
    (program / "cache.toml").write_text(CONFIG)
    monkeypatch.setenv("STOREROOM_CONFIG", str(program / "cache.toml"))
    assert str(find_source()) == f"cache.toml ({program / 'cache.toml'})"
    assert str(Source("somewhere", "", {})) == "somewhere"


def test_repr_of_a_source_tells_no_settings():
    """The repr of a source contains no settings, and so no password."""
    assert "hunter2" not in repr(Source("name", "origin", {"default": {"LOCATION": "redis://:hunter2@h"}}))


# TOML -----------------------------------------------------------------------------------------------


def test_toml_file_is_read(program):
    """A TOML file gives its aliases with upper-case keys, its directory, and "none" for None."""
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
    """A relative path in a TOML file is joined to the directory of the file; a name is kept."""
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
    """A pyproject.toml of a parent directory is found, and its directory is that of relative paths."""
    (program / "pyproject.toml").write_text(PYPROJECT)
    (program / "a/b").mkdir(parents=True)
    monkeypatch.chdir(program / "a/b")
    source = find_source()
    assert (source.name, source.origin) == ("pyproject.toml", str(program / "pyproject.toml"))
    assert source.directory == str(program)


def test_pyproject_toml_can_be_named():
    """read_file() reads the tables of a pyproject.toml given by name."""
    Path("pyproject.toml").write_text(PYPROJECT)
    assert read_file("pyproject.toml").caches["default"]["LOCATION"] == "project"


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "[project]\ndependencies = ['storeroom']\n", "not TOML"])
def test_nearest_pyproject_toml_ends_the_search(program, text, monkeypatch):
    """The nearest pyproject.toml ends the search, even without caches, or invalid and not naming Storeroom."""
    (program / "pyproject.toml").write_text(PYPROJECT)
    (program / "a").mkdir()
    (program / "a/pyproject.toml").write_text(text)
    monkeypatch.chdir(program / "a")
    assert find_source().name == "the embedded default"


def test_pyproject_toml_where_anybody_can_write_is_not_read(program):
    """A pyproject.toml in a world-writable sticky directory, like /tmp, is not read: it may be someone else's."""
    (program / "pyproject.toml").write_text(PYPROJECT)
    program.chmod(0o1777)
    assert find_source().name == "the embedded default"
    program.chmod(0o777)
    assert find_source().name == "pyproject.toml"


def test_removed_current_directory_has_no_project(program, monkeypatch):
    """In a current directory that is gone, the embedded default is used."""
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
    """An invalid or empty file, or one with unknown tables or doubled keys, raises ConfigurationError."""
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
    """An invalid [tool.storeroom] raises ConfigurationError with the file and the nearest name."""
    (program / "pyproject.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(message.format(file=program / "pyproject.toml"))):
        find_source()


def test_number_in_place_of_a_table_is_told_when_it_is_checked():
    """A number in place of a table is reported when CACHES is checked."""
    Path("cache.toml").write_text("caches = 5")
    with pytest.raises(ConfigurationError, match="CACHES is 5; expected a dict"):
        read_caches(read_file("cache.toml").caches)
    Path("cache.toml").write_text("caches.default = 5")
    with pytest.raises(ConfigurationError, match=r"CACHES\['default'\] is 5; expected a dict"):
        read_caches(read_file("cache.toml").caches)


def test_missing_file_is_told(monkeypatch):
    """A file that does not exist raises ConfigurationError, with the variable that names it if one does."""
    monkeypatch.setenv("STOREROOM_CONFIG", "nowhere.toml")
    message = r"STOREROOM_CONFIG is 'nowhere.toml', which cannot be read \(No such file or directory\); expected a TOML"
    with pytest.raises(ConfigurationError, match=message):
        find_source()
    with pytest.raises(ConfigurationError, match=r"^'nowhere.toml' cannot be read"):
        read_file("nowhere.toml")


# URLs --------------------------------------------------------------------------------------------------


def test_url_variables_give_an_alias_each(monkeypatch):
    """CACHE_URL gives the alias default, CACHE_URL_<NAME> the alias of that name; empty ones are skipped."""
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
    """Variables without CACHE_URL, two for one alias, or a wrong URL raise ConfigurationError."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        find_source()


def test_empty_variables_count_as_unset(monkeypatch):
    """Empty CACHE_URL and STOREROOM_CONFIG lead to the embedded default."""
    monkeypatch.setenv("CACHE_URL", "")
    monkeypatch.setenv("STOREROOM_CONFIG", "")
    assert find_source().name == "the embedded default"


# Django --------------------------------------------------------------------------------------------------


def test_django_that_is_imported_but_not_set_up_is_no_source(monkeypatch):
    """Django without settings does not count as a source."""
    django(monkeypatch, configured=False)
    assert find_source().name == "the embedded default"


def test_django_with_a_settings_module_is_a_source(monkeypatch):
    """DJANGO_SETTINGS_MODULE makes Django a source before settings are loaded."""
    django(monkeypatch, configured=False, CACHES={"default": {}}, SETTINGS_MODULE="mysite.settings")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    assert str(find_source()) == "Django's settings.CACHES (mysite.settings)"


def test_django_whose_settings_cannot_be_imported_is_told(monkeypatch):
    """Settings that fail to import raise ConfigurationError with the module and the cause."""

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
    """The embedded default is a file cache in the program's directory, of 100,000 entries and 1 GiB at most."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(program / "cache"))
    source = find_source()
    alias = read_caches(source.caches)["default"]
    assert source.origin == alias.location == sources.program_directory()
    assert alias.backend.__name__ == "FileBasedCache"
    assert alias.settings.options["max_entries"] == 100_000
    assert alias.settings.options["max_bytes"] == 1024**3


@pytest.fixture
def homeless(program, monkeypatch, caplog):
    """A program whose user has no home that can be written to, and a folder of temporary files; return that."""
    (program / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(program / "file" / "cache"))
    monkeypatch.setattr(user_folder, "_SHARED", ())
    monkeypatch.setattr(user_folder, "_told", set())
    temporary = program / "temporary"
    temporary.mkdir()
    temporary.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(temporary))
    return temporary


def test_without_a_home_the_cache_is_in_a_private_temporary_folder(homeless, caplog):
    """Where the user's cache directory cannot be written to, a folder of mode 0700 takes its place; it is told once."""
    source = find_source()
    folder = homeless / f"storeroom-{os.geteuid()}"
    assert Path(source.origin).parent == folder
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert find_source().origin == source.origin == sources.program_directory()
    cache = read_caches(find_source().caches)["default"].build()
    cache.set("key", "value")
    assert cache.get("key") == "value"
    cache.engine.close()
    (told,) = caplog.messages
    assert "cannot be written to" in told
    assert f"in {source.origin} instead. Set CACHE_URL to choose" in told


@pytest.mark.parametrize("planted", ["open", "link", "file", "unsafe", "none"])
def test_a_folder_that_may_be_anothers_is_not_used(homeless, planted, caplog):
    """A folder that others can enter, a link or a file in its position, or none at all: the cache is in memory."""
    folder = homeless / f"storeroom-{os.geteuid()}"
    if planted == "open":
        folder.mkdir()
        folder.chmod(0o755)
    elif planted == "link":
        (homeless / "other").mkdir(mode=0o700)
        folder.symlink_to(homeless / "other")
    elif planted == "file":
        folder.touch()
    elif planted == "unsafe":
        homeless.chmod(0o777)  # anybody could put another folder there later
    else:
        homeless.rmdir()
    source = find_source()
    assert read_caches(source.caches)["default"].backend.__name__ == "LocMemCache"
    assert source.origin.startswith("in memory, as ")
    assert "in the memory of this process instead. Set CACHE_URL" in caplog.text
    with pytest.raises(ConfigurationError, match=r"names a table, and no database, for which .* cannot be written to"):
        sources.program_directory()


@pytest.mark.parametrize("home", [None, "", "relative"])
def test_a_user_without_a_home_is_no_error(homeless, home, monkeypatch):
    """Neither a user id that passwd does not know, nor a home that is no path, makes a directory "~", or an error."""

    def user_cache_path(*_: object, **__: object) -> Path:
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return Path(home) / "storeroom"

    monkeypatch.setattr("platformdirs.user_cache_path", user_cache_path)
    assert Path(find_source().origin).parent.parent == homeless


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give a folder away")
def test_a_home_of_another_user_is_not_used(program, homeless, monkeypatch, caplog):
    """What sudo runs leaves nothing in the home of its caller, and reads nothing there."""
    (program / "home").mkdir()
    os.chown(program / "home", 12345, 12345)
    monkeypatch.setenv("XDG_CACHE_HOME", str(program / "home" / ".cache"))
    assert Path(find_source().origin).parent.parent == homeless
    assert f"{program / 'home'} belongs to another user" in caplog.text


def test_finding_the_embedded_default_loads_only_the_modules_it_needs(program):
    """Without TOML files, finding a source loads no TOML reader, no URLs and no asyncio."""
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
