"""Each row's process."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any, Final, TypeAlias

from tests.cut_short_campaign.counts import PATIENCE, Counts

__all__ = ["Job", "counted"]

Job: TypeAlias = tuple[str, str, str, int]
"""Part, operation, way, and number of cases."""

#: Seconds without a word after which a process is taken for one that hangs.
SILENCE: Final = 2 * PATIENCE

TOLD: Final = 6000
"""Characters of its log that are told of a process that has not come to its end."""


def counted(job: Job, alias: dict[str, Any], seed: int) -> tuple[Counts, str]:
    """Run a row's process; return its counts, and what it was doing if it has not come to its end."""
    told: dict[str, Any] = dict(zip(("part", "operation", "way", "count"), job, strict=True))
    told |= {"seed": seed, "alias": alias, "prefix": f"{' '.join(job[:3])} {os.getpid()} {time.time()}"}
    command = [sys.executable, "-m", "tests.cut_short_campaign.child", json.dumps(told)]
    doing = "the begin"
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as child,
    ):
        assert child.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while selector.select(SILENCE):
                if not (line := child.stdout.readline()):
                    break
                if line.startswith("{"):
                    found = json.loads(line)
                    child.kill()  # threads that hang are not waited for
                    return Counts(**{**found, "errors": Counter(found["errors"])}), ""
                doing = line.strip()
        is_alive = child.poll() is None
        if is_alive:
            child.send_signal(signal.SIGUSR1)  # it writes where its threads are
            time.sleep(1)
            child.kill()
        log.seek(0)
        return Counts(), f"{'hangs' if is_alive else 'dies'} at {doing!r}\n{log.read()[-TOLD:]}"
