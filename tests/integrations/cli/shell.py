"""Commands as a shell runs them: in processes of their own, on pipes or on a terminal."""

import os
import pty
import subprocess
import sys
from contextlib import suppress


def shell(*arguments, stdin="", **environment):
    """Run ``python -m storeroom`` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "storeroom", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def on_terminal(*arguments, answer=""):
    """Run a command with a terminal as its input and output; return exit code and the text on the terminal."""
    controller, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "storeroom", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    ) as process:
        os.close(terminal)
        os.write(controller, answer.encode())
        shown = b""
        with suppress(OSError):  # EIO: the last process that had the terminal open has ended
            while chunk := os.read(controller, 4096):
                shown += chunk
        os.close(controller)
        code = process.wait(timeout=60)
    return code, shown.decode().replace("\r\n", "\n")
