"""The configuration that a command goes by: --config, --alias, a program's own sources, the embedded default."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from storeroom.cli import configuration, main
from storeroom.registry import sources


@pytest.fixture
def settings_module(tmp_path, monkeypatch):
    """A module ``shop.settings`` below the working directory, forgotten afterwards."""
    Path("shop").mkdir()
    Path("shop/__init__.py").touch()
    Path("shop/settings.py").write_text(
        f"CACHES = {{'default': {{'BACKEND': 'storeroom.backends.filebased.FileBasedCache',"
        f" 'LOCATION': '{tmp_path}/cache', 'OPTIONS': {{'MAX_ENTRIES': 10000}}}},"
        f" 'memory': {{'BACKEND': 'storeroom.backends.locmem.LocMemCache'}}}}\nEMPTY = None\n"
    )
    Path("my-settings.py").touch()
    Path("shop/broken.py").write_text("raise RuntimeError('no database')\n")
    Path("shop/needy.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.usefixtures("settings_module")
@pytest.mark.parametrize("config", ["shop.settings", "shop.settings.CACHES", "shop/settings.py"])
def test_config_may_be_a_module_or_a_dict_in_it(run, cache, config):
    """--config takes the dotted path of a module with CACHES in it, or of the dict itself, or the module's file."""
    cache.set("key", "value")
    assert run("get", "key", config=config) == (0, "value\n", "")


@pytest.mark.usefixtures("settings_module")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nowhere.settings", "No module named 'nowhere'). Run this where"),
        ("shop.nothing", "No module named 'shop.nothing'). Run this where"),
        ("shop.settings.CACHE", "shop.settings has no 'CACHE'. Did you mean 'CACHES'?"),
        ("shop.settings.EMPTY", "expected a module with CACHES in it, or a dict"),
        ("shop", "expected a module with CACHES in it, or a dict"),
        ("shop.broken", "cannot be imported (RuntimeError: no database)"),
        ("shop.needy", "cannot be imported (No module named 'nowhere_to_be_found')."),
        ("shop/nothing.py", "cannot be read (No such file)"),
        ("my-settings.py", "no name of a module leads to"),
        ("nowhere.toml", "cannot be read (No such file or directory)"),
        ("mongodb://u:hunter2@h", "whose scheme 'mongodb' is unknown"),
        ("not a name", "expected the path of a TOML file, a module"),
    ],
)
def test_a_config_that_cannot_be_used_is_explained(run, config, message):
    """A --config that cannot be used exits with 2, with its reason and a remedy, and without its password."""
    code, output, errors = run("keys", config=config)
    assert (code, output) == (2, "")
    assert errors.startswith("storeroom: --config is ")
    assert message in errors
    assert "hunter2" not in errors


def test_config_may_be_a_toml_file(run, cache, tmp_path):
    """--config takes the path of a TOML file."""
    cache.set("key", "value")
    Path("caches.toml").write_text(
        "[caches.default]\nbackend = 'storeroom.backends.filebased.FileBasedCache'\n"
        f"location = '{tmp_path}/cache'\noptions = {{ max_entries = 10000 }}\n"
    )
    assert run("get", "key", config="caches.toml")[1] == "value\n"


def test_without_config_a_programs_sources_count(cache, url, monkeypatch, capsys):
    """Without --config a command finds the configuration where a program does, as in CACHE_URL."""
    cache.set("key", "value")
    monkeypatch.setenv("CACHE_URL", url)
    assert main(["get", "key"]) == 0
    assert capsys.readouterr().out == "value\n"


def test_options_stand_before_or_after_the_command(url, cache, capsys):
    """--config and --alias may stand before or after the command, in short or in full."""
    cache.set("key", "value")
    assert main(["--config", url, "--alias", "default", "get", "key"]) == 0
    assert main(["get", "key", "-c", url, "-a", "default"]) == 0
    assert capsys.readouterr().out == "value\nvalue\n"


@pytest.mark.usefixtures("settings_module")
def test_an_alias_is_chosen_by_name(run):
    """--alias chooses a cache, with a note if it is in one process's memory; a wrong name brings up the nearest."""
    code, _, errors = run("set", "key", "value", "--alias", "memory", config="shop.settings")
    assert code == 0
    assert (
        errors
        == "Note: the cache 'memory' is in the memory of each process; this command sees none of another's entries.\n"
    )
    assert isinstance(configuration.find("shop.settings").source.caches["memory"]["BACKEND"], str)
    code, _, errors = run("keys", "--alias", "memry", config="shop.settings")
    assert code == 2
    assert "has 'default', 'memory'. Did you mean 'memory'?" in errors


def test_the_embedded_default_is_explained_on_a_miss(capsys):
    """A miss in the embedded default tells whose cache it is, and how to name another."""
    assert main(["get", "key"]) == 1
    assert "Nothing is configured here, so this is the cache of the folder " in str(capsys.readouterr().err)
    assert main(["set", "key", "value"]) == 0
    assert main(["get", "key"]) == 0
    assert capsys.readouterr().out == "value\n"


def test_the_embedded_default_is_known_by_its_name():
    """The command line and the registry call the embedded default by the same name."""
    assert sources.find_source().name == configuration.EMBEDDED_DEFAULT


def test_a_wrong_configuration_points_to_check(run):
    """A command that fails on a wrong configuration refers to `storeroom check`."""
    Path("caches.toml").write_text("[caches.default]\nTIMEOUT = 5\n")
    code, _, errors = run("keys", config="caches.toml")
    assert code == 2
    assert "has no BACKEND" in errors
    assert "`storeroom check` says more" in errors


class NotABaseCache:
    """A third party's class with the least that Django asks for."""

    def __init__(self, location, params):
        pass

    def get(self, key, default=None, version=None):
        return "value"


def test_a_foreign_class_may_lack_methods(run, monkeypatch):
    """A third party's class serves the commands that it has methods for, and the others name the method it lacks."""
    foreign = ModuleType("foreign")
    foreign.CACHES = {"default": {"BACKEND": NotABaseCache}}
    monkeypatch.setitem(sys.modules, "foreign", foreign)
    assert run("get", "key", config="foreign")[:2] == (0, "value\n")
    code, _, errors = run("ttl", "key", config="foreign")
    assert code == 3
    assert errors == "storeroom: NotABaseCache of cache 'default' has no ttl().\n"


def test_commands_know_the_other_aliases(tmp_path, run):
    """Commands on tiers find them among the aliases of the same configuration."""
    config = tmp_path / "caches.toml"
    config.write_text(f"""
[caches.default]
BACKEND = "storeroom.backends.tiered.TieredCache"
OPTIONS = {{ tiers = ["memory", "files"] }}
[caches.memory]
BACKEND = "storeroom.backends.locmem.LocMemCache"
OPTIONS = {{ max_entries = 100 }}
[caches.files]
BACKEND = "storeroom.backends.filebased.FileBasedCache"
LOCATION = "{tmp_path}/files"
OPTIONS = {{ max_entries = 1000 }}
""")
    assert run("check", config=str(config))[0] == 0
    assert run("set", "k", "1", config=str(config))[0] == 0
    assert run("get", "k", config=str(config))[1] == "1\n"
    assert "Cache 'memory'" in run("stats", config=str(config))[1]
