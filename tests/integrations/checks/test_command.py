"""`storeroom check` with all aliases together: exit codes, --offline, --timeout, --json."""

import json
import time

import pytest

from storeroom import checks
from storeroom.checks import Context
from storeroom.cli import main
from tests.integrations.checks.looks import BARE, DATABASE, REDIS, on, url

# All aliases ------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_aliases_are_asked_at_the_same_time(sound):
    """Aliases are asked at the same time, and a server that several share is reported once."""
    sound.process.pause()
    begun = time.monotonic()
    caches = {
        name: on(REDIS, url(sound, number), OPTIONS={"socket_timeout": 60})["default"]
        for number, name in enumerate(["default", "pages", "sessions", "rates"])
    }
    probes = checks.probe(caches, context=BARE, seconds=0.5)
    assert list(probes) == list(caches)
    assert time.monotonic() - begun < 1.5, "one after the other they take as long"
    findings = checks.run(caches, context=BARE, probes=probes)
    assert [finding.alias for finding in findings] == ["default"], "of a server that is shared it is said once"


def test_alias_without_a_server_is_not_asked(tmp_path):
    """Aliases in memory and in files are not asked, and no file is made."""
    memory = {"BACKEND": "storeroom.backends.locmem.LocMemCache"}
    files = {"BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path / "cache")}
    assert checks.probe({"default": memory, "files": files}, context=BARE) == {}
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_alias_is_not_asked():
    """An alias with a mistake in its settings is not asked."""
    assert checks.probe(on(REDIS, "redis://127.0.0.1:1", TIMEOUT="x"), context=BARE) == {}


def test_a_table_in_a_sites_database_is_not_looked_for_elsewhere():
    """A table in a site's own database is looked for within Django only, and the answer says so."""
    probes = checks.probe(on(DATABASE, "pages"), context=Context(in_django=True))
    assert "where Django runs" in probes["default"].unasked


# The command ------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["check", *arguments])
    return code, capsys.readouterr().out


def test_check_exits_by_the_servers_answers(sound, capsys):
    """`check` exits with 0, 1 or 2 by its findings on the servers, which it lists."""
    config = f"{url(sound)}?key_prefix=shop"
    code, output = run(capsys, "--config", config)
    assert (code, output.splitlines()[-1]) == (0, "Nothing is wrong.")
    assert f"  default  redis://127.0.0.1:{sound.port} (primary)  Redis " in output
    sound.ask("CONFIG", "SET", "maxmemory", "0")
    assert run(capsys, "--config", config)[0] == 1
    assert run(capsys, "--config", config, "--silence", "W023")[0] == 0
    sound.process.kill()
    code, output = run(capsys, "--config", config)
    assert (code, output.splitlines()[-1]) == (2, "1 error.")
    assert "(primary)" in output
    assert "out of reach" in output


def test_check_offline_asks_nobody(sound, capsys):
    """`check --offline` asks no server and lists none."""
    sound.process.kill()
    code, output = run(capsys, "--offline", "--config", f"{url(sound)}?key_prefix=shop")
    assert code == 0
    assert "Servers" not in output


@pytest.mark.slow
def test_check_has_a_timeout(sound, capsys):
    """`check --timeout` bounds the wait for a server that hangs, and takes positive numbers only."""
    sound.process.pause()
    config = f"{url(sound)}?key_prefix=shop&socket_timeout=60"
    begun = time.monotonic()
    assert run(capsys, "--timeout", "0.2", "--config", config)[0] == 2
    assert time.monotonic() - begun < 5
    assert run(capsys, "--timeout", "0")[0] == 2
    assert run(capsys, "--timeout", "soon")[0] == 2


def test_check_as_json_has_the_servers(sound, capsys):
    """`check --json` has each server with its address and answer, and no password."""
    code, output = run(capsys, "--json", "--config", f"{url(sound).replace('//', '//:hunter2@')}?key_prefix=shop")
    assert code == 2
    assert "hunter2" not in output
    (server,) = json.loads(output)["servers"]
    assert (server["alias"], server["address"]) == ("default", f"redis://127.0.0.1:{sound.port}")
    assert server["is_refusal"] is True
    code, output = run(capsys, "--json", "--config", f"{url(sound)}?key_prefix=shop")
    (server,) = json.loads(output)["servers"]
    assert (server["product"], server["failure"]) == ("Redis", "")
    assert server["latency"] < 1
