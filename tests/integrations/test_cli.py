"""The command line: real processes for what a shell sees, and in this process for the tables."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

import storeroom.cli
from storeroom import checks
from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.locmem import LocMemCache
from storeroom.cli import COMMANDS, configuration, main
from storeroom.cli.exits import exit_code
from storeroom.exceptions import (
    ConfigurationError,
    KeyNotFoundError,
    SerializationError,
    StorageError,
    StoreroomError,
    ValueTypeError,
)
from storeroom.registry import sources
from storeroom.testing import FakeClock


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch, tmp_path):
    """Nothing is configured, and nothing around tells of several processes; the working directory is empty."""
    for name in [*os.environ]:
        if name.startswith(("CACHE_URL", "STOREROOM_", "DJANGO_", "GUNICORN_", "UWSGI_")) or name == "WEB_CONCURRENCY":
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home-cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def url(tmp_path):
    """A file cache, as --config takes it."""
    return f"file://{tmp_path}/cache?max_entries=10000"


@pytest.fixture
def cache(tmp_path):
    """The same cache, as a program opens it."""
    return FileBasedCache(str(tmp_path / "cache"), {"OPTIONS": {"max_entries": 10_000}})


@pytest.fixture
def run(url, capsys):
    """Run a command on the cache in this process; return exit code, output and errors."""

    def run(*arguments, config=None):
        code = main([*arguments, "--config", config or url])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def shell(*arguments, stdin="", **environment):
    """Run ``python -m storeroom`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "storeroom", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_commands_know_the_other_aliases(tmp_path, run):
    """Tiers are aliases of the same configuration."""
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
    assert "memory: hits" in run("stats", config=str(config))[1]


# As a process -----------------------------------------------------------------------------


@pytest.mark.slow
def test_commands_of_several_processes_share_the_cache(url):
    """What one process sets, others read, count up, list, and remove."""
    on_cache = ("--config", url)
    assert shell("set", "visits", "5", *on_cache).returncode == 0
    assert shell("incr", "visits", *on_cache).stdout == "6\n"
    assert shell("get", "visits", *on_cache).stdout == "6\n"
    assert shell("keys", *on_cache).stdout == "visits\n"
    assert 200 < float(shell("ttl", "visits", *on_cache).stdout) <= 300
    assert shell("delete", "visits", *on_cache).stdout == "Removed 1 entry.\n"
    missed = shell("get", "visits", *on_cache)
    assert (missed.returncode, missed.stdout, missed.stderr) == (1, "", "Key 'visits' is not in the cache.\n")


@pytest.mark.slow
def test_values_travel_through_pipes(url):
    assert shell("set", "page", "-", "--config", url, stdin="line one\nline two\n").returncode == 0
    assert shell("get", "page", "--config", url).stdout == "line one\nline two\n"


@pytest.mark.slow
def test_a_mistake_is_one_message_without_traceback():
    ran = shell("get", "key", "--config", "nowhere.toml")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("storeroom: --config is 'nowhere.toml', which cannot be read")
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.slow
def test_a_storage_that_fails_exits_with_3(tmp_path):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "storeroom-1").touch()
    ran = shell("get", "key", "--config", f"file://{tmp_path}/cache")
    assert ran.returncode == 3
    assert ran.stderr.startswith("storeroom: The file cache in ")
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(cache, url):
    cache.set_many({f"{number:05}{'x' * 90}": 1 for number in range(5000)})
    command = [sys.executable, "-m", "storeroom", "keys", "--config", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("00000")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 141


@pytest.mark.slow
def test_an_interrupt_ends_quietly_and_leaves_nothing_behind(cache, url):
    command = [sys.executable, "-m", "storeroom", "bench", "--seconds", "60", "--config", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while cache.stats().entries == 0:
            assert time.monotonic() < deadline, "the benchmark has begun"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130
    assert output == ""
    assert errors.strip() == ""
    assert cache.stats().entries == 0


def on_terminal(*arguments, answer=""):
    """Run a command with a terminal as its input and output; return exit code and what the terminal shows."""
    controller, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "storeroom", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    ) as process:
        os.close(terminal)
        os.write(controller, answer.encode())
        shown = b""
        with suppress(OSError):  # EIO: the last process that had the terminal open has ended
            while chunk := os.read(controller, 4096):
                shown += chunk
        os.close(controller)
        code = process.wait(timeout=60)
    return code, shown.decode().replace("\r\n", "\n")


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "code", "left"), [("n\n", 1, 1), ("\n", 1, 1), ("\x04", 1, 1), ("y\n", 0, 0)])
def test_clear_asks_on_a_terminal(cache, url, answer, code, left):
    cache.set("key", "value")
    exited, shown = on_terminal("clear", "--config", url, answer=answer)
    assert "Remove all entries, 1 of the current version? [y/N]" in shown
    assert exited == code
    assert cache.count() == left


@pytest.mark.slow
def test_colours_are_for_terminals(monkeypatch):
    Path("mistake.toml").write_text(
        "[caches.default]\nBACKEND = 'storeroom.backends.locmem.LocMemCache'\nTIMEOUT = 0\n"
    )
    assert "\x1b[33;1mwarning storeroom.W004\x1b[0m" in on_terminal("check", "--config", "mistake.toml")[1]
    assert "\x1b" not in shell("check", "--config", "mistake.toml").stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in shell("check", "--config", "mistake.toml").stdout


# Help and usage ---------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_fits_a_terminal(command, capsys):
    """Every line of every --help has at most 80 characters, and each command explains itself."""
    assert main([*command, "--help"]) == 0
    output = capsys.readouterr().out
    assert [line for line in output.splitlines() if len(line) > 80] == []
    assert output.startswith(f"usage: storeroom{''.join(f' {word}' for word in command)} ")


def test_help_tells_the_exit_codes(capsys):
    main(["--help"])
    output = capsys.readouterr().out
    for code in (0, 1, 2, 3, 130):
        assert f"\n  {code:<4} " in output


def test_version_names_storeroom_and_python(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f" on Python {sys.version.split()[0]}\n")


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
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_command_loads_only_its_own_module():
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
    assert exit_code(error) == code


# get and set ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stored"),
    [
        (["hello"], "hello"),
        (["5"], 5),
        (["-5"], -5),
        (["0"], 0),
        (["007"], "007"),
        (["5.0"], "5.0"),
        (["1_000"], "1_000"),
        (["٣"], "٣"),
        (["true"], "true"),
        ([""], ""),
        (["5", "--type", "str"], "5"),
        (["007", "--type", "int"], 7),
        (["2.5", "--type", "float"], 2.5),
        (['{"a": [1, null]}', "--type", "json"], {"a": [1, None]}),
    ],
)
def test_set_stores_what_was_meant(run, cache, arguments, stored):
    assert run("set", "key", *arguments) == (0, "", "")
    assert cache.get("key") == stored
    assert type(cache.get("key")) is type(stored)


@pytest.mark.parametrize("arguments", [["x", "--type", "int"], ["{", "--type", "json"]])
def test_set_refuses_a_value_that_is_not_of_its_type(run, cache, arguments):
    code, output, errors = run("set", "key", *arguments)
    assert (code, output) == (2, "")
    assert errors.startswith(f"storeroom: VALUE is '{arguments[0]}', which is not of type {arguments[2]}")
    assert cache.stats().entries == 0


@pytest.mark.parametrize(("timeout", "ttl"), [("5m", 300), ("90", 90), ("1h30m", 5400), ("forever", None), ("0", 0)])
def test_set_takes_timeouts_in_words(run, cache, timeout, ttl):
    assert run("set", "key", "value", "--timeout", timeout)[0] == 0
    assert cache.ttl("key") == (ttl if ttl is None else pytest.approx(ttl, abs=5))


def test_set_refuses_a_timeout_without_meaning(run):
    code, _, errors = run("set", "key", "value", "--timeout", "5 parsecs")
    assert code == 2
    assert "5 parsecs" in errors


@pytest.mark.parametrize(
    ("value", "printed", "as_json"),
    [
        ("hello", "hello\n", '"hello"\n'),
        ("Grüße ☕", "Grüße ☕\n", '"Grüße ☕"\n'),
        (5, "5\n", "5\n"),
        (None, "null\n", "null\n"),
        ({"a": [1, True]}, '{"a": [1, true]}\n', '{"a": [1, true]}\n'),
        ({1}, "{1}\n", None),
        (b"\x00\xff", b"\x00\xff", None),
    ],
)
def test_get_prints_any_value(request, capfdbinary, value, printed, as_json):
    url = request.getfixturevalue("url")
    request.getfixturevalue("cache").set("key", value)
    assert main(["get", "key", "--config", url]) == 0
    expected = printed if isinstance(printed, bytes) else printed.encode()
    assert capfdbinary.readouterr().out == expected
    code = main(["get", "key", "--json", "--config", url])
    captured = capfdbinary.readouterr()
    if as_json is None:
        assert code == 2
        assert b"is not JSON" in captured.err
    else:
        assert captured.out == as_json.encode()


def test_get_says_why_a_value_cannot_be_read(run, cache, monkeypatch):
    """Such as one of a class that this process cannot import."""
    monkeypatch.setattr(sys.modules[__name__], "Gone", type("Gone", (), {"__module__": __name__}), raising=False)
    cache.set("key", sys.modules[__name__].Gone())
    monkeypatch.undo()
    code, output, errors = run("get", "key")
    assert (code, output) == (1, "")
    assert errors == "Key 'key' is there, but its value cannot be read here.\n"


def test_keys_have_versions(run, cache):
    run("set", "key", "new", "--key-version", "2")
    assert run("get", "key")[0] == 1
    assert run("get", "key", "--key-version", "2")[1] == "new\n"
    assert run("keys", "--key-version", "2")[1] == "key\n"


# delete, incr, ttl ------------------------------------------------------------------------


def test_delete_counts_what_was_there(run, cache):
    cache.set_many({"a": 1, "b": 2})
    assert run("delete", "a", "b", "c") == (0, "Removed 2 entries.\n", "")
    assert run("delete", "a") == (1, "Removed 0 entries.\n", "")


def test_incr_adds(run, cache):
    cache.set("n", 5)
    assert run("incr", "n") == (0, "6\n", "")
    assert run("incr", "n", "-10") == (0, "-4\n", "")
    assert run("incr", "n", "0.5") == (0, "-3.5\n", "")


def test_incr_of_nothing_is_a_no(run):
    code, output, errors = run("incr", "n")
    assert (code, output) == (1, "")
    assert errors.startswith("storeroom: Key 'n' not found")


def test_incr_of_text_is_a_mistake(run, cache):
    cache.set("n", "text")
    assert run("incr", "n")[0] == 2


def test_ttl_of_what_never_expires(run, cache):
    cache.set("key", 1, timeout=None)
    assert run("ttl", "key") == (0, "forever\n", "")
    assert run("ttl", "key", "--json") == (0, "null\n", "")


def test_ttl_of_nothing_is_a_no(run):
    assert run("ttl", "key") == (1, "", "Key 'key' is not in the cache.\n")


# keys, clear, stats, prune ----------------------------------------------------------------


def test_keys_are_sorted_and_chosen_by_prefix(run, cache):
    cache.set_many({"user:2": 1, "user:1": 1, "page:1": 1})
    assert run("keys") == (0, "page:1\nuser:1\nuser:2\n", "")
    assert run("keys", "user:") == (0, "user:1\nuser:2\n", "")
    assert json.loads(run("keys", "user:", "--json")[1]) == ["user:1", "user:2"]
    assert run("keys", "nothing") == (0, "", "")


def test_clear_needs_somebody_who_answers(run, cache):
    cache.set("key", 1)
    code, output, errors = run("clear")
    assert (code, output) == (2, "")
    assert "pass --yes" in errors
    assert cache.count() == 1
    assert run("clear", "--yes") == (0, "The cache 'default' is empty.\n", "")
    assert cache.count() == 0


def test_stats_show_counts_and_bounds(run, cache):
    cache.set("key", "x" * 1000)
    cache.get("key")
    cache.get("key")
    cache.get("absent")
    code, output, _ = run("stats")
    assert code == 0
    rows = {line[:15].strip(): line[15:].split() for line in output.splitlines()[2:]}
    assert rows["entries"] == ["1", "of", "10,000"]
    assert rows["hit ratio"] == ["66.7%"]
    assert rows["hits"] == ["2"]
    counted = json.loads(run("stats", "--json")[1])
    assert counted["entries"] == 1
    assert counted["hit_ratio"] == pytest.approx(2 / 3)


def test_prune_tells_what_it_freed(run):
    memory = LocMemCache("prune", {})
    with FakeClock() as clock:
        memory.set_many({f"k{number}": "x" * 1000 for number in range(20)}, timeout=10)
        memory.set("kept", 1, timeout=None)
        clock.advance(11)
        code, output, _ = run("prune", "--json", config="locmem://prune")
        assert code == 0
        pruned = json.loads(output)
        assert pruned["entries"] == 20
        assert pruned["bytes"] > 20_000
        assert run("prune", config="locmem://prune")[1] == "Removed 0 expired entries, 0 bytes.\n"
        assert memory.keys() == ["kept"]


def test_prune_frees_room_in_files(run, cache):
    with FakeClock() as clock:
        cache.set_many({f"k{number}": "x" * 1000 for number in range(20)}, timeout=10)
        clock.advance(11)
        assert run("prune")[0] == 0
        assert cache.stats().entries == 0


# Where the configuration comes from -------------------------------------------------------


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
    Path("shop/broken.py").write_text("raise RuntimeError('no database')\n")
    Path("shop/needy.py").write_text("import nowhere_to_be_found\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


@pytest.mark.usefixtures("settings_module")
@pytest.mark.parametrize("config", ["shop.settings", "shop.settings.CACHES"])
def test_config_may_be_a_module_or_a_dict_in_it(run, cache, config):
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
        ("shop/settings.py", "name the module: --config shop.settings"),
        ("nowhere.toml", "cannot be read (No such file or directory)"),
        ("mongodb://u:hunter2@h", "whose scheme 'mongodb' is unknown"),
        ("not a name", "expected the path of a TOML file, a module"),
    ],
)
def test_a_config_that_cannot_be_used_is_explained(run, config, message):
    code, output, errors = run("keys", config=config)
    assert (code, output) == (2, "")
    assert errors.startswith("storeroom: --config is ")
    assert message in errors
    assert "hunter2" not in errors


def test_config_may_be_a_toml_file(run, cache, tmp_path):
    cache.set("key", "value")
    Path("caches.toml").write_text(
        "[caches.default]\nbackend = 'storeroom.backends.filebased.FileBasedCache'\n"
        f"location = '{tmp_path}/cache'\noptions = {{ max_entries = 10000 }}\n"
    )
    assert run("get", "key", config="caches.toml")[1] == "value\n"


def test_without_config_a_programs_sources_count(cache, url, monkeypatch, capsys):
    cache.set("key", "value")
    monkeypatch.setenv("CACHE_URL", url)
    assert main(["get", "key"]) == 0
    assert capsys.readouterr().out == "value\n"


def test_options_stand_before_or_after_the_command(url, cache, capsys):
    cache.set("key", "value")
    assert main(["--config", url, "--alias", "default", "get", "key"]) == 0
    assert main(["get", "key", "-c", url, "-a", "default"]) == 0
    assert capsys.readouterr().out == "value\nvalue\n"


@pytest.mark.usefixtures("settings_module")
def test_an_alias_is_chosen_by_name(run):
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
    assert main(["get", "key"]) == 1
    assert "this is the command's own cache; --config names another" in str(capsys.readouterr().err)
    assert main(["set", "key", "value"]) == 0
    assert main(["get", "key"]) == 0
    assert capsys.readouterr().out == "value\n"


def test_the_embedded_default_is_known_by_its_name():
    assert sources.find_source().name == configuration.EMBEDDED_DEFAULT


def test_a_wrong_configuration_points_to_check(run):
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


def test_a_foreign_class_may_lack_what_is_ours(run, monkeypatch):
    foreign = ModuleType("foreign")
    foreign.CACHES = {"default": {"BACKEND": NotABaseCache}}
    monkeypatch.setitem(sys.modules, "foreign", foreign)
    assert run("get", "key", config="foreign")[:2] == (0, "value\n")
    code, _, errors = run("ttl", "key", config="foreign")
    assert code == 3
    assert errors == "storeroom: NotABaseCache of cache 'default' has no ttl().\n"


# check ------------------------------------------------------------------------------------

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
def test_check_exits_by_what_it_finds(run, settings, code, summary):
    Path("caches.toml").write_text(RIGHT + settings)
    exited, output, errors = run("check", config="caches.toml")
    assert exited == code
    assert output.splitlines()[-1] == summary
    assert errors == ""


def test_check_shows_source_and_aliases_without_passwords(run):
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
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\n")
    assert '[caches.default]\n            TIMEOUT = "forever"\n' in run("check", config="caches.toml")[1]
    Path("pyproject.toml").write_text(RIGHT.replace("[caches", "[tool.storeroom.caches") + "TIMEOUT = 0\n")
    assert "[tool.storeroom.caches.default]\n" in run("check", config="pyproject.toml")[1]
    output = run("check", config="locmem://?timeout=0")[1]
    assert '            "default": {\n                "TIMEOUT": None,\n            },\n' in output


def test_check_prints_a_finding_in_full(run):
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\n")
    _, output, _ = run("check", config="caches.toml")
    rule = checks.RULES["storeroom.W004"]
    words = " ".join(output.split())
    assert f"warning storeroom.W004 (default): {rule.title} what TIMEOUT is 0. why {rule.why} mend For" in words
    assert "more docs/common-mistakes.md#w004" in words
    assert max(map(len, output.splitlines()[3:])) <= 80


def test_check_as_json(run):
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
def test_check_leaves_out_what_is_silenced(run, monkeypatch, by):
    Path("caches.toml").write_text(RIGHT + "TIMEOUT = 0\nLOCATION = '/x'\n")
    if by == "variable":
        monkeypatch.setenv("STOREROOM_SILENCED_CHECKS", "W004, storeroom.W002")
    arguments = ["--silence", "w004", "--silence", "storeroom.W002"] if by == "option" else []
    code, output, _ = run("check", *arguments, config="caches.toml")
    assert code == 0
    assert output.splitlines()[-1] == "Nothing is wrong. (2 findings silenced.)"


def test_check_does_not_silence_what_does_not_exist(run):
    code, _, errors = run("check", "--silence", "W0O4")
    assert code == 2
    assert errors.startswith("storeroom: There is no check 'W0O4' to silence.")


def test_check_is_told_of_processes(run, monkeypatch):
    Path("caches.toml").write_text(RIGHT)
    assert run("check", config="caches.toml")[0] == 0
    assert "and 4 processes serve the site." in run("check", "--processes", "4", config="caches.toml")[1]
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert "storeroom.W001" in run("check", config="caches.toml")[1]
    assert run("check", "--processes", "1", config="caches.toml")[0] == 0


def test_check_reads_djangos_settings_from_their_module(run, monkeypatch):
    Path("web_settings.py").write_text(
        "INSTALLED_APPS = []\nDEBUG = True\nSESSION_ENGINE = 'django.contrib.sessions.backends.cache'\n"
        "CACHES = {'default': {'BACKEND': 'django.core.cache.backends.locmem.LocMemCache'}}\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "modules", {**sys.modules})
    assert "storeroom.W016" in run("check", config="web_settings")[1]


def test_check_takes_relative_paths_in_a_file_from_its_folder(run):
    text = "[caches.default]\nBACKEND = 'storeroom.backends.filebased.FileBasedCache'\nLOCATION = 'cache'\n"
    Path("caches.toml").write_text(text + "OPTIONS = { max_entries = 1000 }\n")
    assert run("check", config="caches.toml")[0] == 0


def test_check_says_what_a_missing_configuration_means(capsys, monkeypatch):
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)  # which another test may have loaded
    assert main(["check"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("Configuration: the embedded default")
    assert "Each program then has a cache of its own" in captured.out
    assert captured.err == "Django's own settings are checked by: --config mysite.settings\n"


def test_check_survives_a_caches_that_is_no_dict(run):
    Path("caches.toml").write_text("caches = 5\n")
    code, _, errors = run("check", config="caches.toml")
    assert code == 2
    assert "Traceback" not in errors


# bench ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_measures_and_leaves_the_cache_as_it_was(run, cache):
    cache.set("key", "value")
    code, output, _ = run("bench", "--seconds", "0.05", "--threads", "2", "--size", "50", "--json")
    assert code == 0
    report = json.loads(output)
    assert (report["threads"], report["value_bytes"]) == (2, 50)
    names = [figure["operation"] for figure in report["figures"]]
    assert names == ["get", "set", "get_many of 100", "set_many of 100", "incr"]
    for figure in report["figures"]:
        assert figure["microseconds"] > 0
        assert figure["calls_per_second"] > 0
    assert cache.keys() == ["key"]
    assert cache.stats().entries == 1


@pytest.mark.slow
def test_bench_prints_a_table(run):
    code, output, _ = run("bench", "--seconds", "0.05")
    assert code == 0
    assert "Values of 100 bytes, 1 thread; median of 5 rounds" in output
    assert output.splitlines()[3].split() == ["µs", "per", "call", "calls", "per", "second"]


def test_bench_does_not_evict_unasked(run, tmp_path):
    small = f"file://{tmp_path}/small?max_entries=150"
    code, output, errors = run("bench", config=small)
    assert (code, output) == (2, "")
    assert "holds 0 of 150 entries, and the benchmark adds up to 200" in errors


@pytest.mark.slow
def test_bench_of_a_cache_that_stores_nothing_leaves_incr_out(run):
    code, output, _ = run("bench", "--seconds", "0.05", config="dummy://")
    assert code == 0
    assert "incr" not in output


def test_bench_raises_what_a_thread_raises(run, monkeypatch):
    monkeypatch.setattr(LocMemCache, "get_many", lambda *_: (_ for _ in ()).throw(StorageError("It is gone.")))
    code, _, errors = run("bench", "--seconds", "0.01", "--threads", "2", config="locmem://bench?max_entries=1000")
    assert code == 3
    assert errors.endswith("storeroom: It is gone.\n")


def test_every_command_has_its_functions():
    for command in COMMANDS.values():
        module = __import__(f"{storeroom.cli.__name__}.{command.module}", fromlist=["*"])
        assert callable(getattr(module, command.run))
        assert callable(getattr(module, command.add_arguments))
