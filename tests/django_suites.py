"""Django's own test suites and django-redis's at once: most of either is waiting, for entries to expire.

They print one after the other, and Ctrl-C ends both.
"""

import subprocess
import sys
import tempfile

__all__ = ["main"]


def main() -> int:
    """Run both; return the exit code."""
    with tempfile.TemporaryFile() as printed:
        other = subprocess.Popen(
            [sys.executable, "-m", "tests.django_redis_suite"], stdout=printed, stderr=subprocess.STDOUT
        )
        failed = subprocess.run([sys.executable, "-m", "tests.django_suite"], check=False).returncode
        failed = other.wait() or failed
        printed.seek(0)
        sys.stdout.buffer.write(printed.read())
    return int(failed != 0)


if __name__ == "__main__":
    sys.exit(main())
