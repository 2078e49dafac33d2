"""A new user's path, from the wheel in an empty environment: no checkout, no configuration, no network."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from typing import TypeAlias
from zipfile import ZipFile

import pytest

from storeroom.backends.locmem.hot_path import IS_COMPILED
from storeroom.cli import COMMANDS
from tests.docs_site.navigation import DOCS
from tests.docs_site.sources import prepared

ROOT = DOCS.parent

User: TypeAlias = Callable[..., subprocess.CompletedProcess[str]]

#: Storeroom's own dependencies: taken from here, as an index would give them.
DEPENDENCIES = ("lmdb", "platformdirs")

FIRST_CACHE = """
from storeroom import cache
print(cache.get_or_set("answer", lambda: print("computed") or 42))
"""

METADATA = """
from importlib.metadata import distribution
import storeroom
print(storeroom.__version__)
print(distribution("storeroom").read_text("METADATA"))
"""


def build(folder: Path, **environment: str) -> Path:
    """Build the wheel as a release builds it."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this machine."""
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def user(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> User:
    """Runs a command line as somebody who has installed the wheel, in a project of theirs."""
    folder = tmp_path_factory.mktemp("user")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", "--python", python]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", wheel], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    for name in DEPENDENCIES:
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files or []} - {".."}:
            (packages / top).symlink_to(installed.locate_file(top))
    project = folder / "shop"
    project.mkdir()
    (project / "pyproject.toml").write_text("[project]\nname = 'shop'\n", "utf-8")
    path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.defpath}"
    environment = {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "COLUMNS": "100"}

    def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=project, env=environment | more, capture_output=True, text=True, check=False, timeout=60
        )

    return run


@pytest.mark.slow
def test_a_new_user_caches_checks_and_looks(user: User) -> None:
    """Install, first cache, another process, check, a mistake, statistics: each works from the wheel alone."""
    first = ("python", "-c", FIRST_CACHE)
    assert user(*first).stdout.split() == ["computed", "42"]
    assert user(*first).stdout.split() == ["42"]
    assert user("storeroom", "get", "answer").stdout.split() == ["42"]
    assert user("storeroom", "check").returncode == 0
    wrong = user("storeroom", "check", CACHE_URL="locmem://?timeuot=5m")
    assert wrong.returncode == 2
    assert "'timeuot'" in wrong.stdout
    assert "timeout" in wrong.stdout
    missing = user("storeroom", "get", "answer", CACHE_URL="redis://127.0.0.1:6379/0")
    assert 'python3 -m pip install "redis[hiredis]>=' in missing.stderr
    assert user("storeroom", "stats").returncode == 0
    assert ("(compiled)" in user("storeroom", "--version").stdout) == IS_COMPILED
    if "explain" in COMMANDS:
        assert "Local memory where several processes" in user("storeroom", "explain", "W001").stdout


@pytest.mark.slow
def test_an_installed_package_tells_its_version_and_its_pages(user: User) -> None:
    """The metadata have the version, and a description whose links lead to pages of the site alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    site = project["urls"]["Documentation"]
    version, told = user("python", "-c", METADATA).stdout.split("\n", 1)
    assert version == project["version"]
    assert f"Project-URL: Documentation, {site}" in told
    links = set(re.findall(r"\]\(([^)#]+)", told))
    pages = {f"{site}{name.removesuffix('.md')}.html" for name, _ in prepared()}
    assert f"{site}tutorial/1-what-a-cache-is-for.html" in links
    assert {link for link in links if not link.startswith("https://") or link.startswith(site)} - pages == set()


@pytest.mark.slow
def test_without_a_compiler_the_wheel_is_pure(wheel: Path, tmp_path: Path) -> None:
    """One that has compiled methods is for this Python; another is for any, and as complete in all else."""
    pure = build(tmp_path, CC="false")
    assert pure.name.endswith("-py3-none-any.whl")
    assert wheel.name.endswith("-py3-none-any.whl") != IS_COMPILED
    names = [set(ZipFile(each).namelist()) for each in (wheel, pure)]
    assert {Path(name).name.partition(".")[0] for name in names[0] - names[1]} == (
        {"_compiled"} if IS_COMPILED else set()
    )
    assert names[1] - names[0] == set()
    assert not [name for name in names[1] if name.endswith((".c", ".h", ".so"))]
