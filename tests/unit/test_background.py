"""The worker threads of a process: their number, the jobs they refuse, and the end of a process."""

import subprocess
import sys
import threading
from contextvars import ContextVar, copy_context

import pytest

from storeroom.backends.locmem import LocMemCache
from storeroom.engines import background
from storeroom.engines.background import _Workers
from storeroom.testing.concurrency import eventually


@pytest.fixture
def workers():
    made = _Workers()
    yield made
    made.close()


def test_jobs_run(workers):
    """Every submitted job is accepted and run once."""
    done = []
    for number in range(10):
        assert workers.submit(lambda number=number: done.append(number))
    eventually(lambda: len(done) == 10)
    assert sorted(done) == list(range(10))


def test_there_are_no_more_threads_than_allowed_and_no_more_jobs_than_can_wait(workers, monkeypatch):
    """Beyond MAX_WORKERS running and MAX_WAITING waiting jobs, submit() returns False."""
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 600.0)  # on a busy machine they wait for as long
    may_end = threading.Event()
    accepted = [workers.submit(may_end.wait) for _ in range(background.MAX_WORKERS)]
    eventually(lambda: not workers.jobs)
    accepted += [workers.submit(may_end.wait) for _ in range(background.MAX_WAITING)]
    assert all(accepted)
    assert workers.submit(may_end.wait) is False
    assert workers.threads == background.MAX_WORKERS
    may_end.set()
    eventually(lambda: not workers.jobs)


def test_an_idle_thread_is_used_again(workers):
    """Jobs submitted one after the other run in a single thread."""
    for _ in range(20):
        assert workers.submit(lambda: None)
        eventually(lambda: not workers.jobs and workers.idle == workers.threads)
    assert workers.threads == 1


def test_jobs_for_later_take_no_thread_until_then(workers):
    """However many jobs wait for their time, another runs at once. The end of the process is the time of all."""
    done = []
    for _ in range(2 * background.MAX_THREADS):
        assert workers.submit_later(600, lambda: done.append("at the end"))
    for number, seconds in enumerate([0.03, 0.0, 0.001]):
        assert workers.submit_later(seconds, lambda number=number: done.append(number))
    eventually(lambda: len(done) == 3)
    assert (set(done), workers.threads <= 5) == ({0, 1, 2}, True)
    workers.close()
    eventually(lambda: not workers.threads)
    assert done[3:] == ["at the end"] * 2 * background.MAX_THREADS
    assert workers.submit_later(0, done.clear) is workers.submit_later(1, done.clear) is False


def test_a_job_for_later_is_not_refused_for_others_that_wait(workers, monkeypatch):
    """Where submit() refuses, as too many wait, submit_later() tries again; an error of such a job is no other's."""
    monkeypatch.setattr(background, "MAX_WAITING", 0)
    done = []
    assert workers.submit(done.clear) is False
    for job in (lambda: done.append(1), lambda: 1 // 0, lambda: done.append(2)):
        assert workers.submit_later(0, job)
    monkeypatch.setattr(background, "MAX_WAITING", 10)
    assert workers.submit(lambda: None)  # the first to come by
    eventually(lambda: sorted(done) == [1, 2])


def test_a_job_for_later_is_done_at_the_end_of_the_process_though_it_is_due(workers):
    """A job that submit_later() has taken is done, where the process ends before a thread has come to it."""
    may_end, done = threading.Event(), []
    for _ in range(background.MAX_WORKERS):
        assert workers.submit(may_end.wait)
    eventually(lambda: not workers.jobs)
    assert workers.submit(lambda: done.append("refresh"))
    with workers.lock:
        assert workers.submit_later(0, lambda: done.append("look"))
        workers.rested.wait_for = lambda *_: None  # the end waits for nobody here
        workers.close()
    may_end.set()
    eventually(lambda: done and not workers.threads)
    assert done == ["look"]


@pytest.fixture
def no_more_threads():
    """Have the system refuse any further thread, for want of room for its stack."""
    before = threading.stack_size(2**46)
    yield
    threading.stack_size(before)


def test_a_job_is_refused_where_the_system_allows_no_thread(workers, request):
    """submit() returns False and keeps no job if no thread can be started."""
    request.getfixturevalue("no_more_threads")
    for _ in range(3):
        assert workers.submit(lambda: None) is False
    assert (workers.threads, list(workers.jobs)) == (0, [])


def test_a_job_is_left_to_the_threads_running_where_the_system_allows_no_more(workers, request):
    """If no further thread can be started, an accepted job waits for an existing one."""
    may_end, done = threading.Event(), threading.Event()
    assert workers.submit(may_end.wait)
    eventually(lambda: not workers.jobs)
    request.getfixturevalue("no_more_threads")
    assert workers.submit(done.set)
    may_end.set()
    assert done.wait(10)
    assert workers.threads == 1


@pytest.mark.usefixtures("no_more_threads")
def test_a_caller_computes_itself_where_the_system_allows_no_thread(tmp_path):
    """Without threads, get_or_set() computes in its caller under hard_timeout and stale_while_revalidate."""
    cache = LocMemCache(str(tmp_path), {"OPTIONS": {"hard_timeout": 10}})
    assert cache.get_or_set("k", lambda: "computed") == "computed"
    assert cache.get_or_set("k", lambda: "computed again", stale_while_revalidate=100) == "computed"


def test_a_job_that_raises_ends_no_thread(workers, caplog):
    """A job that raises is logged, and the next job runs."""
    done = threading.Event()

    def fail() -> None:
        raise LookupError("the job's own")

    workers.submit(fail)
    workers.submit(done.set)
    assert done.wait(10)
    eventually(lambda: "failed" in caplog.text)


def test_after_the_end_nothing_is_accepted(workers):
    """submit() returns False once the workers are closed."""
    workers.close()
    assert workers.submit(lambda: None) is False


def test_a_job_runs_in_the_context_of_its_caller():
    """A job sees the context variables that its caller passed on."""
    name: ContextVar[str] = ContextVar("name", default="none")
    name.set("caller's")
    seen = []
    assert background.submit(lambda: seen.append(name.get()), copy_context())
    assert background.drain()
    assert seen == ["caller's"]


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "stored"), [(0.1, "2"), (60, "1")])
def test_a_process_that_ends_waits_for_a_job_that_ends_soon(tmp_path, seconds, stored):
    """At exit a short refresh is still stored; a long one is abandoned, and the old entry stays whole."""
    program = f"""
import sys, time
from storeroom.backends.filebased import FileBasedCache
cache = FileBasedCache(sys.argv[1], {{}})
options = dict(timeout=1000, early=1e18)
assert cache.get_or_set("k", lambda: 1, **options) == 1
def compute():
    time.sleep({seconds})
    return 2
assert cache.get_or_set("k", compute, **options) == 1
"""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    look = "import sys; from storeroom.backends.filebased import FileBasedCache as F; c = F(sys.argv[1], {}); "
    shown = subprocess.run(
        [sys.executable, "-c", look + "print(c.get('k'))", str(tmp_path / "cache")],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert shown.stdout.strip() == stored


def test_a_child_has_workers_of_its_own():
    """After a fork, a job runs on new threads, since the parent's are gone."""
    assert background.submit(lambda: None, copy_context())
    assert background.drain()
    before = background._workers
    try:
        background._after_fork_in_child()
        done = threading.Event()
        assert background.submit(done.set, copy_context())
        assert done.wait(10)
    finally:
        background._workers.close()
        background._workers = before
