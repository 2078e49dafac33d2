"""Celery: one computation among all workers, and pages that a task makes absent.

Nothing is to be done about forks: a child of the pool opens the storage anew when it first uses it.
"""

import os
import time
from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from storeroom import cache, cached, caches
from storeroom.pages import Pages

broker = os.environ.get("BROKER_URL", "redis://localhost:6379/0")
app = Celery("examples", broker=broker, backend=broker)


@worker_process_init.connect
def look_at_the_configuration(**_: Any) -> None:
    """Let a child begin with its caches, so that a mistake in their configuration is told now, and not by a task."""
    caches.all()


@cached(timeout="10m")
def report(day: str) -> str:
    """Compute what takes long: once, however many tasks ask for it at the same time."""
    time.sleep(0.2)
    return f"{day}: computation {cache.incr('computations', default=0)}, by {os.getpid()}"


@app.task
def send(day: str, to: str) -> str:
    """Send a report to somebody."""
    return f"{to}: {report(day)}"


@app.task
def publish(tag: str) -> None:
    """Make the pages of a site absent that have this tag."""
    Pages("default").invalidate(tags=[tag])
