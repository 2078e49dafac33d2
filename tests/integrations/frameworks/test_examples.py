"""The applications of examples/ on real servers, loaded by real clients: each server is started once."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from storeroom.backends.filebased import FileBasedCache
from storeroom.backends.redis import RedisCache
from storeroom.pages import Pages
from storeroom.testing.concurrency import eventually
from tests.integrations.frameworks.servers import ROOT, commands, environment, running, script
from tests.servers.redis import RedisServer, redis_binary

pytestmark = pytest.mark.slow


@pytest.fixture
def files(tmp_path):
    return f"file://{tmp_path}/cache"


def opened(url):
    """Return the cache that the applications have."""
    return FileBasedCache(url.removeprefix("file://"), {})


def run_script(url, *arguments):
    ran = subprocess.run(
        script(url, *arguments), env=environment(url), cwd=ROOT, capture_output=True, text=True, check=True
    )
    return ran.stdout


def at_once(count, ask):
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda _: ask(), range(count)))


def test_every_example_has_its_command():
    """The page names each application, and each that it names is there."""
    assert sorted(commands()) == sorted(path.stem for path in (ROOT / "examples").glob("*.py"))


def test_fastapi_on_uvicorn(files):
    """Hits, invalidation by route and by another process, stale pages, and the end, which waits for a value."""
    with running("fastapi_app", files) as site, site.client() as client:
        first = client.get("/items/7")
        assert first.json()["price"] == 9.99
        assert "hit" in client.get("/items/7").headers["cache-status"]
        client.put("/items/7/price", params={"price": 5})
        assert [client.get("/items/7").json()["price"] for _ in range(2)] == [5, 5]
        assert run_script(files, "7=6.5", "8=1") == "2 prices are new.\n"
        assert [client.get(f"/items/{number}").json()["price"] for number in (7, 7, 8)] == [6.5, 6.5, 1]

        answers = [client.get("/news")]
        eventually(lambda: answers.append(client.get("/news")) or answers[-1].json() != answers[0].json())
        assert not any("fwd=" in each.headers["cache-status"] for each in answers[1:])

        assert client.get("/report").json() == 1
        cache = opened(files)
        eventually(lambda: cache.get("report") is None)
        assert client.get("/report").json() == 1  # the second one is on its way
        site.process.stop()
    assert cache.get("reports") == 2
    assert cache.get("report", 2) == 2


def test_starlette_on_granian(files):
    """Pages of one worker are the other's; events come one by one; sessions are everybody's."""
    with running("starlette_app", files) as site, site.client() as client:
        assert len(set(at_once(20, lambda: client.get("/").text))) == 1
        with client.stream("GET", "/events") as events:
            came = [(line, time.monotonic()) for line in events.iter_lines() if line]
        assert [line for line, _ in came] == ["data: 0", "data: 1", "data: 2"]
        assert came[2][1] - came[0][1] > 0.1
        answers = []

        def reach_both():
            opened(files).clear()
            answers.append(client.get("/visits").text.split())
            return len({worker for _, worker in answers}) == 2

        eventually(reach_both)
        assert [number for number, _ in answers] == [str(number + 1) for number in range(len(answers))]


def test_flask_on_gunicorn(files):
    """Three workers answer one page; an invalidation of one, or of another process, is seen by all."""
    with running("flask_app", files) as site, site.client() as client:
        eventually(lambda: len(set(at_once(24, lambda: client.get("/worker").text))) == 3)
        page = set(at_once(24, lambda: client.get("/items/7").text))
        assert len(page) == 1
        assert "for 9.99" in page.pop()
        client.post("/items/7/5.00")
        pages = set(at_once(24, lambda: client.get("/items/7").text))
        assert len(pages) == 1
        assert "for 5.00" in pages.pop()
        run_script(files, "7=6.5")
        pages = set(at_once(24, lambda: client.get("/items/7").text))
        assert len(pages) == 1
        assert "for 6.5" in pages.pop()
        menus = {client.get(f"/items/{number}").text.split("</nav>")[0] for number in range(6)}
        assert len(menus) == 1


def test_django_on_gunicorn(files):
    """As before; a page that is invalidated by its URL in this process."""
    with running("django_app", files) as site, site.client() as client:
        eventually(lambda: len(set(at_once(24, lambda: client.get("/worker").text))) == 3)
        page = set(at_once(24, lambda: client.get("/items/7").text))
        assert len(page) == 1
        assert "hit" in client.get("/items/7").headers["cache-status"]
        Pages(opened(files)).invalidate(url="/items/7")
        assert "hit" not in client.get("/items/7").headers["cache-status"]
        assert "hit" in client.get("/items/7").headers["cache-status"]


@pytest.fixture
def broker(tmp_path, monkeypatch):
    server = RedisServer(redis_binary(), tmp_path / "redis").start()
    url = f"redis://127.0.0.1:{server.port}"
    monkeypatch.setenv("BROKER_URL", f"{url}/0")
    yield url
    server.stop()


def test_celery_with_a_pool_of_processes(broker):
    """Tasks of several processes wait for one computation; a task makes pages absent."""
    with running("celery_app", f"{broker}/1", BROKER_URL=f"{broker}/0"):
        from examples.celery_app import app, publish, send

        sent = [send.delay("Monday", to) for to in "abcd"]
        told = [task.get(timeout=20) for task in sent]
        assert [each[0] for each in told] == list("abcd")
        assert len({each[3:] for each in told}) == 1
        assert "computation 1," in told[0]
        cache = RedisCache(f"{broker}/1", {})
        cache.set("page", 1, tags=["items"])
        publish.delay("items").get(timeout=20)
        assert cache.get("page") is None
        app.close()
