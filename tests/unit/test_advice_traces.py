"""Traces for advice: the forms that are read, and the errors that name file and line."""

import gzip
import lzma
import math

import pytest

from storeroom import TraceError
from storeroom.advice import Simulation, logs, read_trace

MONITORED = r"""OK
1700000000.500000 [0 127.0.0.1:50000] "GET" "user:1"
1700000001.000000 [0 127.0.0.1:50000] "set" "user:1" "\x80\x04value\"\n" "EX" "60"
1700000002.000000 [3 127.0.0.1:50000] "mget" "a" "b\xc3\xa9"
1700000003.000000 [0 lua] "SETEX" "c" "30" "v"
1700000004.000000 [0 127.0.0.1:50000] "DEL" "a" "c"
1700000005.000000 [0 127.0.0.1:50000] "EXPIRE" "c" "5"
1700000006.000000 [0 127.0.0.1:50000] "set" "d" "v" "PXAT" "1700000016000"
1700000007.000000 [0 127.0.0.1:50000] "set" "d" "v" "keepttl"
1700000008.000000 [0 unix:/tmp/redis.sock] "set" "d" "v" "NX"
1700000009.000000 [0 [::1]:50000] "flushdb"
"""

VERBOSE = """slab class   1: chunk size        96 perslab   10922
<28 new auto-negotiating client connection
<28 get a b
>28 sending key a
>28 END
<28 set a 0 60 5
>28 STORED
<28 mg meta v t
<28 ms meta 5 T90 F0
<28 md meta
<28 gat 10 c
<28 incr n 1
<28 flush_all
<28 connection closed.
"""


def written(tmp_path, text, name="trace.log"):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return str(path)


def test_a_line_is_a_key(tmp_path):
    """Any text is a key, with its spaces; empty lines say nothing."""
    trace = read_trace(written(tmp_path, "a b\n\nc\r\na b\n"))
    assert (trace.keys, trace.reads, len(trace), trace.left_out, trace.has_times) == (["a b", "c"], 3, 3, 1, False)


def test_monitor_lines_are_requests():
    """MONITOR's quotes and escapes, databases, timeouts in every form, removals; other commands say nothing."""
    found = [request for line in MONITORED.splitlines() for request in logs.monitor(line) or ()]
    short = [(each.operation, each.key, each.timeout) for each in found]
    assert short == [
        ("read", "user:1", None),
        ("write", "user:1", 60.0),
        ("read", "db3:a", None),
        ("read", "db3:bé", None),
        ("write", "c", 30.0),
        ("delete", "a", None),
        ("delete", "c", None),
        ("write", "d", pytest.approx(10.0)),
        ("write", "d", None),
        ("write", "d", math.inf),
        ("clear", "", None),
    ]
    assert found[0].time == 1700000000.5


def test_verbose_lines_of_memcached_are_requests():
    """Commands of the text and the meta protocol; replies and other lines say nothing."""
    found = [request for line in VERBOSE.splitlines() for request in logs.memcached(line) or ()]
    assert [(each.operation, each.key, each.timeout) for each in found] == [
        ("read", "a", None),
        ("read", "b", None),
        ("write", "a", 60),
        ("read", "meta", None),
        ("write", "meta", 90),
        ("delete", "meta", None),
        ("read", "c", None),
        ("clear", "", None),
    ]


@pytest.mark.parametrize(("text", "reads"), [(MONITORED, 3), (VERBOSE, 4)])
def test_the_form_is_told_by_the_lines(tmp_path, text, reads):
    """Logs are known by their first lines, and may be named instead."""
    assert read_trace(written(tmp_path, text)).reads == reads
    assert read_trace(written(tmp_path, text), "keys").reads == len([line for line in text.splitlines() if line])


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".xz", lzma.compress)])
def test_compressed_traces_are_read(tmp_path, suffix, compress):
    """A trace may be compressed."""
    path = tmp_path / f"trace{suffix}"
    path.write_bytes(compress(MONITORED.encode()))
    assert read_trace(str(path)).reads == 3


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nonsense", "expected a line of MONITOR"),
        ('1700000001.0 [0 127.0.0.1:1] "get"', "expected a key after GET"),
        ('1700000001.0 [0 127.0.0.1:1] "set" "k" "v" "EX" "soon"', "expected a whole number for the timeout of SET"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, expected):
    """The error has the file, the number of the line, the expectation and the line's beginning."""
    text = "\n".join([*MONITORED.splitlines()[:4], line, *MONITORED.splitlines()[4:]]) + "\n"
    path = written(tmp_path, text)
    with pytest.raises(TraceError, match=expected) as caught:
        read_trace(path)
    assert str(caught.value).startswith(f"{path}:5: ")
    assert line[:20] in str(caught.value)


def test_a_wrong_line_of_memcached_is_named(tmp_path):
    """A command without its key, or with a timeout that is none, is named as well."""
    path = written(tmp_path, f"{VERBOSE}<28 set a 0 soon 5\n")
    with pytest.raises(TraceError, match=f"{len(VERBOSE.splitlines()) + 1}: expected a whole number"):
        read_trace(path)


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path):
    """A log that its writer was stopped at ends anywhere."""
    assert read_trace(written(tmp_path, f'{MONITORED}1700000010.0 [0 127.0.0.1:5000] "ge')).reads == 3


@pytest.mark.parametrize("name", ["absent.txt", "folder", "broken.gz", "broken.xz", "empty.txt", "torn.gz"])
def test_a_file_that_is_no_trace_is_named(tmp_path, name):
    """A file that is absent, a folder, not compressed as it says, or without a read is an error of one kind."""
    (tmp_path / "folder").mkdir()
    for broken in ("broken.gz", "broken.xz", "empty.txt"):
        (tmp_path / broken).write_text("" if "empty" in broken else "no such format\n")
    (tmp_path / "torn.gz").write_bytes(gzip.compress(b"a\n" * 100)[:-9])
    with pytest.raises(TraceError, match=name):
        read_trace(str(tmp_path / name))


def test_a_replay_keeps_to_timeouts_and_removals(tmp_path):
    """Entries expire by the log's own clock, and removed keys are missed."""
    lines = [
        '100.0 [0 c:1] "get" "k"',
        '100.1 [0 c:1] "set" "k" "v" "EX" "10"',
        '105.0 [0 c:1] "get" "k"',
        '111.0 [0 c:1] "get" "k"',
        '112.0 [0 c:1] "del" "k"',
        '113.0 [0 c:1] "get" "k"',
        '113.5 [0 c:1] "flushall"',
        '114.0 [0 c:1] "get" "k"',
    ]
    trace = read_trace(written(tmp_path, "\n".join(lines)))
    simulation = Simulation([10], timeout=60.0)
    trace.replay(simulation)
    assert sum(simulation.sizes[0].misses) == 4
    assert simulation.reads == 5
