"""Builds the compiled methods of local memory, where there is a compiler: docs/decisions/0025-compiled-hits.md.

A wheel has them in it then, and is for one version of Python; an editable install has them beside their source. Where
they cannot be built, or STOREROOM_PURE=1 asks for none, the package is pure Python, and works as well.
"""

import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

MODULE: Final = "storeroom.backends.locmem._compiled"
FOLDER: Final = "storeroom/backends/locmem"
SOURCES: Final = (f"{FOLDER}/_compiled.c", "storeroom/eviction/insert.c")

#: No product and sum in one step, which some processors round but once: Python rounds both.
ARGUMENTS: Final = [] if os.name == "nt" else ["-ffp-contract=off", "-fvisibility=hidden"]


class CompiledMethods(BuildHookInterface[Any]):
    """Builds the extension for a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the result where it is imported from."""
        if not is_wanted():
            return
        if version == "editable":
            compiled(self.root, Path(self.root) / "src")
            return
        self.folder = tempfile.TemporaryDirectory()  # until the wheel is written
        if (built := compiled(self.root, Path(self.folder.name))) is not None:
            build_data["force_include"][str(built)] = f"{FOLDER}/{built.name}"
            build_data.update(pure_python=False, infer_tag=True)


def is_wanted() -> bool:
    """Tell whether this Python can use them: CPython, with the interpreter's lock, which they rely on."""
    has_lock = not sysconfig.get_config_var("Py_GIL_DISABLED")
    return sys.implementation.name == "cpython" and has_lock and os.environ.get("STOREROOM_PURE", "0") in {"", "0"}


def compiled(root: str, folder: Path) -> Path | None:
    """Compile into a folder, and return the file; None, with a warning of setuptools, where that fails."""
    sources = [f"{root}/src/{source}" for source in SOURCES]
    extension = Extension(MODULE, sources, optional=True, extra_compile_args=ARGUMENTS)
    command: Any = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
    command.force = True
    command.build_lib = str(folder)
    with tempfile.TemporaryDirectory() as command.build_temp:
        command.ensure_finalized()
        command.run()
    built = Path(command.get_ext_fullpath(MODULE))
    return built if built.exists() else None
