"""A terminal for a command: a pseudo terminal, and the screen that is drawn on it."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress

import pyte

PATIENCE = 60.0
"""Seconds until something that has to be shown is taken to be missing."""

_LAUNCHER = """
import os, sys
os.login_tty(0)  # else Ctrl-C and the end of the terminal are no signals
os.execv(sys.executable, [sys.executable, "-m", "storeroom", *sys.argv[1:]])
"""


class Screen:
    """A command on a terminal of so many columns and lines."""

    def __init__(self, *arguments, columns=120, lines=24, **environment):
        self._controller, terminal = pty.openpty()
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self.written = b""
        self.resize(columns, lines)
        inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, *arguments],
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            env={**inherited, "TERM": "xterm", **environment},
        )
        os.close(terminal)

    def resize(self, columns, lines):
        """Give the terminal another size: the command is told by SIGWINCH."""
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._controller, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys):
        """Type these characters."""
        os.write(self._controller, keys.encode())

    @property
    def lines(self):
        """The screen as it is now."""
        while select.select([self._controller], [], [], 0.02)[0]:
            try:
                chunk = os.read(self._controller, 65_536)
            except OSError:  # EIO: the command has ended
                break
            if not chunk:
                break
            self.written += chunk
            self._stream.feed(chunk)
        return [line.rstrip() for line in self._screen.display]

    @property
    def chosen(self):
        """The lines that are shown in reverse."""
        self.lines  # noqa: B018 -- read what has come
        buffer = self._screen.buffer
        return [text.rstrip() for number, text in enumerate(self._screen.display) if buffer[number][1].reverse]

    def wait_for(self, is_there):
        """Wait until the screen is as the function says; return its lines."""
        until = time.monotonic() + PATIENCE
        while not is_there(lines := self.lines):
            if time.monotonic() > until or (self.process.poll() is not None and not is_there(self.lines)):
                raise AssertionError("\n".join(["not shown:", *lines]))
        return lines

    @property
    def echoes(self):
        """Whether the terminal shows what is typed, as a shell leaves it."""
        return bool(termios.tcgetattr(self._controller)[3] & termios.ECHO)

    def hang_up(self):
        """Let the terminal go."""
        os.close(self._controller)
        self._controller = -1

    def end(self):
        """Wait for the command; return its exit code."""
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            if self._controller >= 0:
                self.lines  # noqa: B018 -- a full terminal would stop it
            time.sleep(0.02)
        return self.process.wait(1)

    def close(self):
        """End the command, if it has not ended."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        with suppress(OSError):
            os.close(self._controller)
