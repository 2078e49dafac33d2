"""django-ratelimit's own tests on Storeroom's classes: the cheapest of the suites that ``make clients`` compares."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.client_suites import checkout, clients
from tests.client_suites.checkout import INSIDE

CLIENT = clients.load()["ratelimit"]


@pytest.mark.slow
def test_ratelimits_own_tests_pass(tmp_path: Path) -> None:
    """All tests of django-ratelimit pass on local memory, with its counters out of reach on Memcached and on Redis."""
    source = checkout.download(CLIENT, Path(sys.executable))
    home = source.unpack(tmp_path, CLIENT.edited, {}, ours=True)
    default = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "LOCATION": "ratelimit"}
    plan = {"settings": CLIENT.settings, "databases": (), "default": default}
    run = subprocess.run(
        [sys.executable, "-m", "django", "test", "django_ratelimit", "--settings=storeroom_client_settings"],
        cwd=home,
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join([str(INSIDE), str(home), os.environ.get("PYTHONPATH", "")]),
            "STOREROOM_CLIENT_PLAN": json.dumps(plan),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    ran = re.search(r"^Ran (\d+) tests", run.stderr, re.MULTILINE)
    assert run.returncode == 0, run.stderr
    assert ran, run.stderr
    assert int(ran[1]) >= CLIENT.minimum
