"""Whose cache the embedded default is: that of the project which this program belongs to.

A program is known by its own file: a script, a package, a zipapp. An interpreter, a kernel of Jupyter and a launcher
that was installed (uvicorn, gunicorn, flask, celery, pytest; as a command or by ``python -m``) work for the working
directory. From there the nearest folder upwards with one of MARKERS is the project. docs/configuration.md has the
table, and docs/decisions/0031-whose-cache.md the reasons.
"""

import os
import stat
import sys
from _blake2 import blake2b  # the C module alone
from collections.abc import Mapping
from typing import Any, Final, Literal

from storeroom.late import pattern, record

__all__ = ["Owner", "anybody_writes", "find_owner", "main_name"]

MARKERS: Final = (
    "pyproject.toml", "setup.py", "setup.cfg", "manage.py", "requirements.txt", "Pipfile", "environment.yml", "tox.ini",
    "Procfile", "Dockerfile", ".git", ".hg",
)  # fmt: skip
"""Files and folders that stand in the root of a project. More of them part more projects, and unite none."""

_DOTFILES: Final = (".git", ".hg")
"""Markers that a home directory has for the sake of its settings."""


_TYPED: Final = ("", "-", "-c", "-m", "/dev/stdin")
"""Names of a program that an interpreter is given line by line."""


_ODD: Final = pattern("[^A-Za-z0-9._-]+")
"""Text that no name of a folder has."""


@record(frozen=True, slots=True)
class Owner:
    """The owner of the embedded default among those of one user."""

    kind: Literal["project", "notebook", "program", "folder"]
    path: str  # its root or its file, links followed
    more: str = ""  # where the path does not tell enough: the command line and the import path, or another project

    def __str__(self) -> str:
        return f"the {self.kind} {self.path}"

    @property
    def folder_name(self) -> str:
        """The name of its folder: one for people, and eight digits that stand for the path."""
        stem = os.path.splitext(os.path.basename(self.path))[0]
        name = _ODD.sub("-", stem).strip(".-")[:60] or "root"
        return f"{name}-{blake2b(os.fsencode(self.path + self.more), digest_size=4).hexdigest()}"


def find_owner() -> Owner:
    """Return the owner of what this program stores: the same for all processes of one project."""
    if getattr(sys, "frozen", False):  # its modules lie in a folder of another name at each start: sys._MEIPASS
        return Owner("program", _main_file())
    notebook = _notebook()
    is_kernel = _is_kernel()
    file = notebook or ("" if is_kernel else _main_file())
    if _is_launcher(_program_of(file)) and os.path.isfile(_called()):
        file = os.path.realpath(_called())  # the script that a profiler or debugger runs; else the launcher again
    program = _program_of(file)
    if not file or _is_launcher(program):
        is_command = os.path.basename(program).startswith("storeroom")
        return _owner_here(is_typed=is_kernel or is_command or _called() in _TYPED)
    project = _project(os.path.dirname(file))
    if project:
        return Owner("project", project)
    if notebook:
        return Owner("notebook", notebook)
    # A runner that an editor brings along lies in no project, and runs the code of the one that it is started in.
    return Owner("program", program, f"\0{_project(_here())}".rstrip("\0"))


def main_name(names: Mapping[str, Any]) -> str:
    """Return the name in keys for the module ``__main__``, whose variables these are: each program has one of them."""
    if getattr(sys, "frozen", False):
        return _main_file()
    file = names.get("__file__") or "<stdin>"
    return os.path.realpath(file) if file[0] != "<" else _notebook() or os.path.join(find_owner().path, "__main__")


def anybody_writes(folder: str | os.PathLike[str]) -> bool:
    """Tell whether this is a directory like /tmp: what is found there may be another user's."""
    shared_by_all = stat.S_ISVTX | stat.S_IWOTH
    try:
        return os.stat(folder).st_mode & shared_by_all == shared_by_all
    except OSError:  # nothing is found in there, either
        return False


def _owner_here(*, is_typed: bool) -> Owner:
    """Return the project or folder that is the working directory.

    A service is often started in the root directory, or in a home. These say nothing of it: its command has to, but
    for lines that somebody types there.
    """
    folder = _here()
    project = _project(folder)
    if project:
        return Owner("project", project)
    is_anybodys = folder in {os.path.dirname(folder), _home()} or anybody_writes(folder)
    return Owner("folder", folder, "\0".join(("", *sys.argv, *sys.path)) if is_anybodys and not is_typed else "")


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed, or is in a folder that may not be entered
        return os.sep


def _called() -> str:
    """Return the name by which the program was called, if it has one: not where a server embeds Python."""
    return sys.argv[0] if getattr(sys, "argv", None) else "?"


def _project(start: str) -> str:
    """Return the nearest folder with a marker from here upwards, or "".

    The way ends before a directory like /tmp, before the root, and before the home directory: a repository of dotfiles
    is no project of all that lies below it. A home is one for itself alone, as that of a service's own user.
    """
    home = _home()
    folder = start
    while folder != os.path.dirname(folder) and not anybody_writes(folder):
        markers = [marker for marker in MARKERS if os.path.lexists(os.path.join(folder, marker))]
        if folder == home:
            return folder if folder == start and not set(markers) <= set(_DOTFILES) else ""
        if markers:
            return folder
        folder = os.path.dirname(folder)
    return ""


def _home() -> str:
    return os.path.realpath(os.path.expanduser("~"))


def _main_file() -> str:
    """Return the real path of the file that runs as ``__main__``; "" for an interpreter and ``python -c``."""
    if getattr(sys, "frozen", False):
        return os.path.realpath(sys.executable)
    # Not from __main__.__spec__: a spawned child knows its parent's script only by these two.
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    called = _called()
    if file is None and not os.path.exists(called):  # "-c", or the name of a server that embeds Python
        return ""
    path = os.path.realpath(file or called)
    # ``python -`` runs "<stdin>"; ``python /dev/stdin`` a pipe.
    return "" if (file or called).startswith("<") or path.startswith("/proc/") else path


def _program_of(file: str) -> str:
    """Return the package or the zipapp that a ``__main__.py`` stands for; every other file stands for itself."""
    return os.path.dirname(file) if os.path.basename(file) == "__main__.py" else file


_COMMAND: Final = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The package ``storeroom`` itself: its command line looks into the cache of the working directory."""


def _is_launcher(program: str) -> bool:
    """Tell whether a program was installed, and so runs code that lies elsewhere."""
    folder, name = os.path.split(program)
    environment = os.path.dirname(folder)
    library = os.path.dirname(os.path.realpath(os.__file__))
    if program == _COMMAND or {"site-packages", "dist-packages"} & set(folder.split(os.sep)):
        return True
    if program.startswith(library + os.sep) or _holds(folder, ".dist-info"):  # python -m pdb; pip install --target
        return True
    if os.path.basename(folder) not in {"bin", "sbin", "Scripts"}:
        return False
    own = os.path.realpath(os.path.dirname(sys.executable)), os.path.realpath(sys.prefix)
    if folder == own[0] or environment == own[1] or _holds(environment, "pyvenv.cfg", "conda-meta", ".dist-info"):
        return True
    return not name.endswith(".py") and not _project(folder)


def _holds(folder: str, *endings: str) -> bool:
    try:
        return any(name.endswith(endings) for name in os.listdir(folder))
    except OSError:
        return False


def _is_kernel() -> bool:
    """Tell whether this is a kernel of Jupyter, which runs no file, or a child of one."""
    has_file = hasattr(sys.modules.get("__main__"), "__file__")
    return "ipykernel" in os.path.basename(_called()) or ("ipykernel" in sys.modules and not has_file)


def _notebook() -> str:
    """Return the path of the notebook that this process runs, or "" where nobody tells it.

    Visual Studio Code sets a variable in the notebook, Jupyter's server one in the environment. A command that runs a
    notebook starts the kernel in the notebook's folder, and says no more.
    """
    path = getattr(sys.modules.get("__main__"), "__vsc_ipynb_file__", None)
    if path is None and _is_kernel():
        path = os.environ.get("JPY_SESSION_NAME") or _notebook_of_command()
    return os.path.realpath(path) if path else ""


def _notebook_of_command() -> str:
    """Return the notebook that nbconvert, papermill and the like run by this kernel, where Linux tells their words."""
    try:
        parent = os.environ.get("JPY_PARENT_PID") or os.getppid()
        with open(f"/proc/{parent}/cmdline", "rb") as file:
            words = os.fsdecode(file.read()).split("\0")
        folder = os.readlink(f"/proc/{parent}/cwd")
    except OSError:
        return ""
    commands = {os.path.basename(word).removeprefix("jupyter-") for word in words[:3]}
    notebooks = [word for word in words if word.endswith(".ipynb")]
    is_known = len(notebooks) == 1 and commands & {"nbconvert", "execute", "run"}
    # papermill's second one is for the output.
    return os.path.join(folder, notebooks[0]) if is_known or (notebooks and "papermill" in commands) else ""
