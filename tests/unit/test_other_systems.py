"""What other systems lack is taken away here: nothing of it is missed. It is no substitute for a run on Windows."""

import subprocess
import sys

#: Modules and functions that Python has on POSIX alone.
WITHOUT_POSIX = """
import os, sys

for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("fchmod", "fchown", "chown", "fork", "getegid", "geteuid", "getgid", "getgroups", "getuid",
             "register_at_fork", "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK"):
    delattr(os, name)
"""

USE = """
import storeroom

base = "storeroom.backends."
storeroom.configure({
    "default": {"BACKEND": base + "filebased.FileBasedCache", "LOCATION": sys.argv[1]},
    "memory": {"BACKEND": base + "locmem.LocMemCache"},
    "sqlite": {"BACKEND": base + "db.DatabaseCache", "LOCATION": "entries",
               "OPTIONS": {"url": f"sqlite:///{sys.argv[1]}/cache.sqlite3"}},
})
for alias in storeroom.caches:
    cache = storeroom.caches[alias]
    cache.set("list", [1], tags=["all"])
    assert cache.get("list") == [1]
    assert cache.get_or_set("number", lambda: 2) == 2
    assert cache.incr("number") == 3
    cache.invalidate_tags("all")
    assert cache.get("list") is None
    with cache.lock("one"):
        cache.clear()
storeroom.caches.close_all()
print("done")
"""


def test_caches_work_without_the_means_of_posix(tmp_path):
    """Files, memory and SQLite store, compute, count, lock and clear without what POSIX alone has."""
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_POSIX + USE, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert ran.stdout == "done\n", ran.stderr
