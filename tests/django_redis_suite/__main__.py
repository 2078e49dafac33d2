"""The command: prepares the suite, runs it on django-redis's class and on ours, and compares them."""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.client_suites import checkout
from tests.client_suites.checkout import Checkout
from tests.client_suites.clients import Client
from tests.django_suite import interpreters
from tests.servers.folders import new_folder, remove_leftovers
from tests.servers.process import ServerProcess, free_port
from tests.servers.redis import RedisServer, redis_binary

#: django-redis's settings modules. Not that of ShardClient, which is refused by name.
KINDS: Final = ("gzip", "herd", "json", "lz4", "msgpack", "sentinel", "sentinel_opts", "usock", "zlib", "zstd")
MODULES: Final = ("sqlite", *(f"sqlite_{kind}" for kind in KINDS))

SUITE: Final = Client(
    name="django-redis",
    requirement="django-redis",
    needs=("pytest-mock", "pytest-xdist", "lz4", "msgpack", "pyzstd"),
    settings="", tests=("tests",), edited=("tests/*.py", "tests/settings/*.py"), storages=("redis",), databases=(),
    options=(), choice="", minimum=0, touching=0, differences={}, only_on={}, repeated=(), interface="django",
)  # fmt: skip

#: How many of a module's tests may end in another way on our class than on django-redis's.
MOST_FAILURES: Final = 5

#: Runs at once: the tests sleep most of the time, until entries expire.
AT_ONCE: Final = 8

#: Tests that empty OPTIONS for all that come after them, in which the modules of Sentinel tell where it is.
#: They run in a process of their own.
APART: Final = "TestClientClose"

SECONDS: Final = 900

OURS: Final = "storeroom.integrations.django_redis.RedisCache"
FAILED: Final = {"failed", "error"}


@dataclass(slots=True)
class Run:
    """The results of one module's tests on one class: a test's name -> "passed", "failed", "error" or "skipped"."""

    results: dict[str, str] = field(default_factory=dict)
    output: str = ""


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.django_redis_suite", description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}")
    chosen = parser.parse_args().modules or MODULES
    remove_leftovers()
    ready = checkout.prepare(SUITE, interpreters.find(sys.version_info[1]) or interpreters.newest())
    differences = tomllib.loads((Path(__file__).parent / "differences.toml").read_text("utf-8"))
    cases = [(module, is_ours) for module in chosen for is_ours in (False, True)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = dict(zip(cases, pool.map(lambda case: run(ready, *case), cases), strict=True))
    print(f"\ndjango-redis {ready.version}, on its class and on ours")
    problems = [
        problem
        for module in chosen
        for problem in compared(module, runs[module, False], runs[module, True], differences.get(module, {}))
    ]
    passed = sum(list(runs[module, True].results.values()).count("passed") for module in chosen)
    skipped = sum(list(runs[module, True].results.values()).count("skipped") for module in chosen)
    print(*problems, sep="\n")
    print(f"django: {passed} passed, {len(problems)} failed, {skipped} skipped")
    return bool(problems)


def compared(module: str, theirs: Run, ours: Run, explained: Mapping[str, str]) -> Iterator[str]:
    """Print a module's numbers and reasons; yield what has to be looked into."""
    results = list(ours.results.values())
    counts = ", ".join(f"{results.count(word)} {word}" for word in ("passed", "failed", "skipped"))
    on_both = [test for test, result in theirs.results.items() if result in FAILED and ours.results.get(test) == result]
    print(f"  {module}: {counts}; {len(on_both)} fail on both")
    for test in on_both:
        print(f"    fails on django-redis's own class, too: {test.rpartition('::')[2]}")
    if not ours.results or not theirs.results:
        yield f"{module}: it did not run\n{(ours if not ours.results else theirs).output}"
        return
    unlike = {test for test in theirs.results if ours.results.get(test, "absent") != theirs.results[test]}
    for test in sorted(unlike):
        result = f"{theirs.results[test]} -> {ours.results.get(test, 'absent')}"
        if (name := test.rpartition("::")[2]) in explained:
            print(f"    differs with a reason: {name}: {result}: {explained[name]}")
        elif ours.results.get(test) != "passed":
            yield f"{module}: {test}: {result}\n{ours.output}"
        else:
            print(f"    passes on ours alone: {test}")
    if len(unlike) > MOST_FAILURES:
        yield f"{module}: {len(unlike)} tests differ; expected {MOST_FAILURES} at most"
    for name in sorted(set(explained) - {test.rpartition("::")[2] for test in unlike}):
        yield f"{module}: {name} is the same on both, and named in differences.toml"


def run(ready: Checkout, module: str, is_ours: bool) -> Run:
    """Run a module's tests with servers of their own."""
    folder = new_folder()
    with ExitStack() as stack:
        server = RedisServer(redis_binary(), folder)
        stack.callback(server.stop)
        server.start()
        sentinel = _sentinel(folder, server.port)
        stack.callback(sentinel.stop)
        sentinel.start()
        edits = {
            "127.0.0.1:6379": f"127.0.0.1:{server.port}",
            "127.0.0.1:56379": f"127.0.0.1:{free_port()}",
            '"127.0.0.1", 26379': f'"127.0.0.1", {sentinel.port}',
            "/tmp/redis.sock": server.socket,
        }
        home = _unpacked(ready, folder, edits, is_ours=is_ours)
        return _tested(ready, home, module)


def _sentinel(directory: Path, primary_port: int) -> RedisServer:
    """Return a Sentinel that knows the server by both names of the suite's settings."""
    sentinel = RedisServer(redis_binary(), directory)
    own = sentinel.folder / "sentinel.conf"
    lines = [f"port {sentinel.port}", "bind 127.0.0.1", "protected-mode no"]
    lines += [f"sentinel monitor {name} 127.0.0.1 {primary_port} 1" for name in ("default_service", "127.0.0.1")]
    own.write_text("\n".join(lines))
    command = [redis_binary(), str(own), "--sentinel"]
    sentinel.process = ServerProcess(command, sentinel.folder, sentinel.answers, sentinel.folder)
    return sentinel


def _unpacked(ready: Checkout, folder: Path, edits: Mapping[str, str], *, is_ours: bool) -> Path:
    with tarfile.open(ready.sdist) as archive:
        archive.extractall(folder, filter="data")
    (home,) = (path for path in folder.iterdir() if path.name.startswith("django_redis-"))
    (home / "django_redis").rename(folder / "unused")  # the one that is installed is tested
    for path in {path for pattern in SUITE.edited for path in home.glob(pattern)}:
        text = path.read_text("utf-8")
        for old, new in edits.items():
            text = text.replace(old, new)
        if is_ours:
            text = re.sub(
                r"\bdjango_redis\.cache\.RedisCache\b", "storeroom.integrations.django_redis.RedisCache", text
            )
        path.write_text(text, "utf-8")
    return home


def _tested(ready: Checkout, home: Path, module: str) -> Run:
    found = Run()
    for part in (f"{module}] and not {APART}", f"{module}] and {APART}") if "sentinel" in module else (f"{module}]",):
        one = _tested_part(ready, home, part)
        found.results |= one.results
        found.output += one.output
    return found


def _tested_part(ready: Checkout, home: Path, part: str) -> Run:
    report = home / "report.xml"
    command = [
        *(ready.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:django", "-c", os.devnull),
        *(f"--rootdir={home}", f"--junitxml={report}", "--tb=short", "-k", part, "tests"),
    ]
    environ = {**os.environ, "PYTHONPATH": str(home)}
    done = subprocess.run(
        list(map(str, command)), cwd=home, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    found = Run(output=f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}")
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        name = f"{case.get('classname')}::{(case.get('name') or '').partition('[')[0]}"
        words = {"failure": "failed", "error": "error", "skipped": "skipped"}
        found.results[name] = next((word for tag, word in words.items() if case.find(tag) is not None), "passed")
    return found


if __name__ == "__main__":
    sys.exit(main())
