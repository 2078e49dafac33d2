"""Whose cache the embedded default is, for each way of starting a program: two projects never share one."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipapp
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

import storeroom
from storeroom.registry import program
from storeroom.registry.program import Owner, find_owner

SHOW = "from storeroom.registry.program import find_owner as f; o = f(); print('owner', o.kind, o.path, o.folder_name)"
#: As a module of a server it ends the process when it is imported: no port is needed.
APP = f"import os\n{SHOW}\nprint(end='', flush=True)\nos._exit(0)\n"
SPAWN = f"""
import multiprocessing, os
def show():
    {SHOW}
if __name__ == "__main__":
    os.chdir("/")
    child = multiprocessing.get_context("spawn").Process(target=show)
    child.start()
    child.join()
"""
#: A console script as pip writes it, and a server that looks for its application in the working directory.
SERVER = "import sys\nif __name__ == '__main__':\n    sys.path.insert(0, '')\n    import main\n"

BIN = Path(sys.executable).parent


@pytest.fixture
def shared(tmp_path):
    """An environment that is installed in a folder of its own, with a server in it: return its bin."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").touch()
    (folder / "setup.cfg").touch()  # its surroundings are a project; it is none of those that it serves
    for name in ("serve", "serve.py"):
        (folder / "bin" / name).write_text(SERVER)
    packages = folder / "lib" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "serve.py").write_text(SERVER)
    return folder / "bin"


def new_folder(path, *markers):
    """Make a folder with programs in it."""
    (path / "pkg").mkdir(parents=True)
    for marker in markers:
        (path / marker).touch()
    (path / "main.py").write_text(APP)
    (path / "test_main.py").write_text("import main\n")
    (path / "show.py").write_text(SHOW)
    (path / "spawn.py").write_text(SPAWN)
    (path / "pkg" / "__init__.py").touch()
    (path / "pkg" / "__main__.py").write_text(SHOW)
    zipapp.create_archive(path / "pkg", path / "app.pyz")
    return path


def owner_of(*command, cwd, home=None, stdin=None, path=None):
    """Run a program that shows its owner; return that, and the name of its folder in the cache."""
    paths = [str(Path(storeroom.__file__).parents[1]), *filter(None, [path])]
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home or cwd),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # they take seconds to load
    }
    run = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environ, capture_output=True, text=True, input=stdin, check=False
    )
    shown = [line.partition("owner ")[2].split() for line in run.stdout.splitlines() if "owner " in line]
    assert len(shown) == 1, run.stdout + run.stderr
    kind, path, name = shown[0]
    return kind, Path(path), name


#: A program of both kinds of servers: each request tells the process, the owner, and an entry of the cache.
SERVED = """
import os
from storeroom import cache
from storeroom.registry.program import find_owner
def told():
    whose = cache.get_or_set("whose", lambda: NAME)
    return f"{os.getpid()} {find_owner().folder_name} {whose}".encode()
def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [told()]
async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": told()})
"""
SERVERS = {
    "uvicorn": ["served:asgi", "--workers", "2", "--lifespan", "off", "--log-level", "warning", "--port"],
    "gunicorn": ["served:wsgi", "--workers", "2", "--log-level", "warning", "--bind"],
}

WAYS = {
    "-c": [sys.executable, "-c", SHOW],
    "-m package": [sys.executable, "-m", "pkg"],
    "script": [sys.executable, "show.py"],
    "profiler": [sys.executable, "-m", "cProfile", "show.py"],
    "package": [sys.executable, "pkg"],
    "zipapp": [sys.executable, "app.pyz"],
    "spawned worker": [sys.executable, "spawn.py"],
    "command": [sys.executable, "SHARED/serve"],
    "command of a script": [sys.executable, "SHARED/serve.py"],
    "python -m command": [sys.executable, "-m", "serve"],
    "python -m pytest": [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "test_main.py"],
    "pytest": [BIN / "pytest", "-s", "-p", "no:cacheprovider", "test_main.py"],
    "uvicorn": [BIN / "uvicorn", "main:app"],
    "python -m uvicorn": [sys.executable, "-m", "uvicorn", "main:app"],
    "gunicorn": [BIN / "gunicorn", "--check-config", "main:app"],
    "flask": [BIN / "flask", "--app", "main", "routes"],
}
#: Ways whose program is a file or a folder of its own.
LOOSE = {
    "script": "show.py",
    "profiler": "show.py",
    "package": "pkg",
    "-m package": "pkg",
    "zipapp": "app.pyz",
    "spawned worker": "spawn.py",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_project_has_one_cache_and_a_folder_none_of_another(way, tmp_path, shared):
    """However it is started, a program in a project has the project's cache; one outside any has one of its own."""
    if way == "gunicorn" and sys.platform == "win32":
        pytest.skip("gunicorn does not run on Windows")
    command = [str(word).replace("SHARED", str(shared)) for word in WAYS[way]]
    path = str(shared.parent / "lib" / "site-packages")
    project, folder = new_folder(tmp_path / "shop", "pyproject.toml"), new_folder(tmp_path / "loose")
    kind, found, name = owner_of(*command, cwd=project, home=tmp_path, path=path)
    assert (kind, found) == ("project", project)
    assert name == Owner("project", str(project)).folder_name
    kind, found, _ = owner_of(*command, cwd=folder, home=tmp_path, path=path)
    assert (kind, found) == ("program" if way in LOOSE else "folder", folder / LOOSE.get(way, ""))


def test_an_interpreter_and_the_command_line_share_the_folders_cache(tmp_path):
    """Lines that are typed, those of a pipe, and `storeroom` in the same folder have one cache."""
    typed = owner_of(sys.executable, "-", cwd=tmp_path, stdin=SHOW)
    assert typed == owner_of(sys.executable, "-i", cwd=tmp_path, stdin=SHOW)
    assert typed == owner_of(sys.executable, "/dev/stdin", cwd=tmp_path, stdin=SHOW)
    shown = subprocess.run(
        [sys.executable, "-m", "storeroom", "check", "--json"],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(storeroom.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert typed[2] in shown.stdout


def test_a_script_belongs_to_its_own_project_and_not_to_the_working_directory(tmp_path):
    """A script that is called from another project, or by a symbolic link, has the cache of its own."""
    shop, bank = new_folder(tmp_path / "shop", ".git"), new_folder(tmp_path / "bank", "manage.py")
    (bank / "link.py").symlink_to(shop / "show.py")
    assert owner_of(sys.executable, shop / "show.py", cwd=bank, home=tmp_path)[1] == shop
    assert owner_of(sys.executable, "link.py", cwd=bank, home=tmp_path)[1] == shop


def test_a_script_outside_any_project_is_one_program_in_each_project_that_it_is_called_from(tmp_path):
    """An editor's runner of tests does not mix the projects; a script that is called elsewhere is known by its path."""
    runner = new_folder(tmp_path / "runner") / "show.py"
    shop, bank = new_folder(tmp_path / "shop", "setup.py"), new_folder(tmp_path / "bank", ".hg")
    found = [owner_of(sys.executable, runner, cwd=cwd, home=tmp_path) for cwd in (shop, bank, "/", tmp_path)]
    assert {(kind, path) for kind, path, _ in found} == {("program", runner)}
    assert len({name for _, _, name in found}) == 3
    assert found[2] == found[3]


def test_the_nearest_marker_is_the_projects(tmp_path):
    """Services in one repository are several projects if each has a file of requirements of its own."""
    for service in ("shop", "bank"):
        new_folder(tmp_path / "code" / service, "requirements.txt")
    (tmp_path / "code" / ".git").mkdir()
    deep = tmp_path / "code" / "shop" / "deep"
    deep.mkdir()
    assert owner_of(sys.executable, "../show.py", cwd=deep, home=tmp_path)[1] == deep.parent
    assert owner_of(sys.executable, "-c", SHOW, cwd=deep, home=tmp_path)[1] == deep.parent
    bank = tmp_path / "code" / "bank"
    assert owner_of(sys.executable, "-c", SHOW, cwd=bank, home=tmp_path)[1] == bank


def test_a_home_is_no_project_of_what_lies_below(tmp_path):
    """Dotfiles make no project of a home; a file of a project makes one of it, but not of the folders below."""
    below = new_folder(tmp_path / "below")
    (tmp_path / ".git").mkdir()
    assert owner_of(sys.executable, "-c", SHOW, cwd=tmp_path)[0] == "folder"
    assert owner_of(sys.executable, "show.py", cwd=below, home=tmp_path)[:2] == ("program", below / "show.py")
    (tmp_path / "manage.py").touch()
    assert owner_of(sys.executable, "-c", SHOW, cwd=tmp_path)[0] == "project"
    assert owner_of(sys.executable, "show.py", cwd=below, home=tmp_path)[:2] == ("program", below / "show.py")


def test_a_marker_where_anybody_can_write_counts_for_nothing(tmp_path):
    """Nobody can join two folders of another by a file in a directory like /tmp."""
    folder = new_folder(tmp_path / "open" / "mine")
    (tmp_path / "open" / "pyproject.toml").touch()
    (tmp_path / "open").chmod(0o1777)
    assert owner_of(sys.executable, "-c", SHOW, cwd=folder, home=tmp_path / "home")[:2] == ("folder", folder)


def test_services_in_a_root_or_a_home_are_told_apart_by_their_commands(tmp_path, shared):
    """Where the working directory tells nothing, another command or another import path is another owner."""
    shop, bank = new_folder(tmp_path / "shop"), new_folder(tmp_path / "bank")
    ways = ("/", shop), ("/", bank), ("/", bank, "--port", "1"), (tmp_path, shop), (tmp_path, bank)
    found = {
        owner_of(sys.executable, shared / "serve", *words, cwd=cwd, home=tmp_path, path=str(path))[2]
        for cwd, path, *words in ways
    }
    assert len(found) == len(ways)


def test_a_frozen_program_is_known_by_its_own_file(tmp_path, monkeypatch):
    """A program of one file, which unpacks itself into another folder at each start, has one cache."""
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "report"))
    assert find_owner() == Owner("program", str(tmp_path / "report"))
    assert program.main_name({"__file__": "/tmp/_MEI123/report.py"}) == str(tmp_path / "report")


@pytest.mark.parametrize("told_by", ["server", "editor"])
def test_a_notebook_is_known_by_its_path(told_by, tmp_path, monkeypatch):
    """The path that Jupyter's server or the editor tells is the owner, or leads to the project."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "ipykernel_launcher.py")])
    monkeypatch.chdir(tmp_path)
    if told_by == "server":
        monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "sales.ipynb"))
    else:
        vars(main)["__vsc_ipynb_file__"] = str(tmp_path / "sales.ipynb")
    assert find_owner() == Owner("notebook", str(tmp_path / "sales.ipynb"))
    assert program.main_name(vars(main)) == str(tmp_path / "sales.ipynb")
    (tmp_path / "Pipfile").touch()
    assert find_owner() == Owner("project", str(tmp_path))


@pytest.mark.skipif(sys.platform != "linux", reason="the words of another process are read from /proc")
def test_notebooks_that_a_command_runs_are_known_by_its_words(tmp_path):
    """Two notebooks in one folder have two caches also where nbconvert runs them; without a path, the folder's."""
    (tmp_path / "ipykernel_launcher.py").write_text(SHOW)
    for name in ("jupyter-nbconvert", "other"):
        (tmp_path / name).write_text(
            "import subprocess, sys\nsubprocess.run([sys.executable, 'ipykernel_launcher.py'], check=True)\n"
        )
    run = [sys.executable, "jupyter-nbconvert"]
    assert owner_of(*run, "a.ipynb", cwd=tmp_path)[:2] == ("notebook", tmp_path / "a.ipynb")
    assert owner_of(*run, "a.ipynb", "b.ipynb", cwd=tmp_path)[:2] == ("folder", tmp_path)
    assert owner_of(sys.executable, "other", "a.ipynb", cwd=tmp_path)[:2] == ("folder", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn does not run there")
@pytest.mark.parametrize("server", SERVERS)
def test_the_workers_of_a_server_share_their_projects_cache(server, tmp_path):
    """Two worker processes of one project have one cache, and those of another project, of one environment, another."""
    found = {}
    for name in ("shop", "bank"):
        folder = new_folder(tmp_path / name, "pyproject.toml")
        (folder / "served.py").write_text(f"NAME = {name!r}\n{SERVED}")
        with serving(server, folder, tmp_path) as port:
            found[name] = {(*told[1:],): told[0] for told in workers(port)}
    assert {name: list(told) for name, told in found.items()} == {
        name: [(Owner("project", str(tmp_path / name)).folder_name, name)] for name in ("shop", "bank")
    }


@contextmanager
def serving(server, folder, home):
    """Serve a folder's program by two workers; yield the port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = f"127.0.0.1:{port}" if server == "gunicorn" else str(port)
    paths = os.pathsep.join((str(Path(storeroom.__file__).parents[1]), str(folder)))
    environ = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": paths}
    process = subprocess.Popen([str(BIN / server), *SERVERS[server], where], cwd=folder, env=environ)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(30)


def workers(port):
    """Yield what each request was told, until two processes have answered."""
    seen, deadline = set(), time.monotonic() + 60
    while len(seen) < 2:
        assert time.monotonic() < deadline, f"answers of {seen} alone"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
                told = answer.read().decode().split()
        except OSError:  # it is starting
            time.sleep(0.05)
            continue
        seen.add(told[0])
        yield told
