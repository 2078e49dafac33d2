"""`storeroom advise`: a trace in, the numbers to write out."""

import json
import os

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.recording.left import leave


@pytest.fixture
def trace(tmp_path):
    """A loop over 1,000 keys."""
    path = tmp_path / "keys.txt"
    path.write_text("".join(f"user:{number % 1_000}\n" for number in range(10_000)))
    return str(path)


@pytest.fixture
def small(tmp_path):
    """The URL of a file cache of 100 entries."""
    return f"file://{tmp_path}/small?max_entries=100&timeout=5m"


def test_a_trace_gives_a_curve_and_the_settings(run, trace, small):
    """The curve by MAX_ENTRIES, the size in use, the dict to write and its effect are printed."""
    code, output, _ = run("advise", "--trace", trace, config=small)
    assert code == 0
    assert "Hit ratio by MAX_ENTRIES" in output
    assert "<- now" in output
    assert "OPTIONS['max_entries']: 100 -> 1000" in output
    assert '"max_entries": 1000' in output
    assert "says nothing about TIMEOUT" in output


def test_json_and_image(run, trace, small, tmp_path):
    """--json prints the same as JSON, and --svg writes the curves beside it."""
    image = tmp_path / "curve.svg"
    code, output, errors = run("advise", "--trace", trace, "--json", "--svg", str(image), config=small)
    assert code == 0
    told = json.loads(output)
    assert told["reads"] == 10_000
    assert told["changes"][0]["after"] == 1_000
    assert image.read_text("utf-8").startswith("<svg ")
    assert str(image) in errors


def test_a_log_of_redis_tells_about_timeouts(run, tmp_path, small):
    """A log with times has a curve by TIMEOUT, too."""
    path = tmp_path / "monitor.log"
    lines = [f'{1_700_000_000 + number}.000000 [0 c:1] "GET" "k{number % 20}"\n' for number in range(4_000)]
    path.write_text("".join(lines))
    code, output, _ = run("advise", "--trace", str(path), config=small)
    assert code == 0
    assert "Hit ratio by TIMEOUT" in output
    assert "5m" in output


def test_a_wrong_trace_is_a_mistake(run, tmp_path, small):
    """The file and the line are named, and the exit code is 2."""
    path = tmp_path / "monitor.log"
    path.write_text('1700000000.0 [0 c:1] "GET" "a"\n' * 3 + "broken\n" + '1700000000.0 [0 c:1] "GET" "a"\n')
    code, _, errors = run("advise", "--trace", str(path), config=small)
    assert code == 2
    assert f"{path}:4: expected a line of MONITOR" in errors
    code, _, errors = run("advise", "--trace", str(tmp_path / "absent"), config=small)
    assert code == 2
    assert "absent cannot be read" in errors


def test_an_image_that_cannot_be_written_is_a_mistake(run, trace, small, tmp_path):
    """The path of --svg is named."""
    code, _, errors = run("advise", "--trace", trace, "--svg", str(tmp_path), config=small)
    assert code == 2
    assert "--svg is" in errors


def test_secrets_of_the_configuration_are_not_printed(run, trace):
    """The dict to write has no password in it."""
    config = "redis://app:hunter2@127.0.0.1:1/0?near.max_entries=5"
    _, output, _ = run("advise", "--trace", trace, config=config.partition("?")[0])
    assert "hunter2" not in output
    assert "near" in output


def test_a_running_programs_answer_is_printed(run, url, tmp_path):
    """Without a trace, the answer that a program has left is printed, and whose it is."""
    code, _, errors = run("advise")
    assert code == 2
    assert "No program has left advice" in errors
    cache = FileBasedCache(str(tmp_path / "cache"), {"OPTIONS": {"max_entries": 10_000, "advise": "always"}})
    for number in range(500):
        cache.get_or_set(f"k{number % 50}", 1)
    leave(cache, cache.advice())
    code, output, _ = run("advise")
    assert code == 0
    assert output.startswith(f"Left by process {os.getpid()}, ")
    assert "The traffic of this process" in output
    assert "OPTIONS['max_entries']: 10000 -> " in output
    code, output, _ = run("advise", "--json")
    assert json.loads(output)["sampled_keys"] == 50


def test_memory_of_another_process_has_no_answer(run):
    """A cache in the memory of each process says that it cannot have been left there."""
    code, _, errors = run("advise", config="locmem://")
    assert code == 2
    assert "No program has left advice" in errors


@pytest.fixture
def advised(tmp_path):
    """A configuration of a file cache of 300 entries that a program has read 500 keys from, and a memory beside it."""
    path = tmp_path / "caches.toml"
    path.write_text(f"""
[caches.default]
backend = "{FILES}"
location = "{tmp_path}/advised"
options = {{ max_entries = 300, advise = "always" }}

[caches.other]
backend = "{FILES}"
location = "{tmp_path}/absent"
options = {{ max_entries = 5_000, advise = true }}
""")
    cache = FileBasedCache(str(tmp_path / "advised"), {"OPTIONS": {"max_entries": 300, "advise": "always"}})
    for number in range(900):
        cache.get_or_set(f"k{number % 450}", 1)
    advice = cache.advice()
    assert advice.changes
    leave(cache, advice)
    return path


FILES = "storeroom.backends.filebased.FileBasedCache"


def test_check_tells_what_the_traffic_asks_for(run, advised, tmp_path):
    """Check prints the changes that a program has left, makes nothing, and its exit code stays."""
    code, output, _ = run("check", config=str(advised))
    assert code == 0
    assert "Advice (default), by traffic" in output
    assert "OPTIONS['max_entries']: 300 -> 600." in output
    assert not (tmp_path / "absent").exists()
    code, output, _ = run("check", "--json", config=str(advised))
    (change,) = json.loads(output)["advice"]
    assert (change["alias"], change["before"], change["after"]) == ("default", 300, 600)
    assert "Advice" not in run("check", "--offline", config=str(advised))[1]


def test_check_is_silent_once_advice_is_followed(run, advised):
    """A setting that is another one by now is not told again."""
    advised.write_text(advised.read_text().replace("max_entries = 300", "max_entries = 600"))
    assert "Advice" not in run("check", config=str(advised))[1]
