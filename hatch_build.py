"""Builds the compiled modules, where there is a compiler: docs/decisions/0025-compiled-hits.md.

A wheel has them in it then, and is for one version of Python; an editable install has them beside their source. Where
they cannot be built, or STOREROOM_PURE=1 asks for none, the package is pure Python, and works as well.
"""

import os
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension

#: Each has a ``.c`` where its name says, and perhaps others.
MODULES: Final[Mapping[str, Sequence[str]]] = {
    "storeroom.backends.locmem._compiled": ["storeroom/eviction/insert.c"],
    "storeroom.backends.filebased._compiled": [],
    "storeroom.storage._compiled": [],
}

#: No product and sum in one step, which some processors round but once: Python rounds both.
ARGUMENTS: Final = [] if os.name == "nt" else ["-ffp-contract=off", "-fvisibility=hidden"]


class CompiledMethods(BuildHookInterface[Any]):
    """Builds the extensions for a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the result where it is imported from."""
        if not is_wanted():
            return
        if version == "editable":
            compiled(self.root, Path(self.root) / "src")
            return
        self.folder = tempfile.TemporaryDirectory()  # until the wheel is written
        for built in compiled(self.root, Path(self.folder.name)):
            build_data["force_include"][str(built)] = built.relative_to(self.folder.name).as_posix()
            build_data.update(pure_python=False, infer_tag=True)


def is_wanted() -> bool:
    """Tell whether this Python can use them: CPython, with the interpreter's lock, which they rely on."""
    has_lock = not sysconfig.get_config_var("Py_GIL_DISABLED")
    return sys.implementation.name == "cpython" and has_lock and os.environ.get("STOREROOM_PURE", "0") in {"", "0"}


def compiled(root: str, folder: Path) -> list[Path]:
    """Compile into a folder, and return the files; those that fail are left out, with a warning of setuptools."""
    sources = {name: [f"{name.replace('.', '/')}.c", *others] for name, others in MODULES.items()}
    extensions = [
        Extension(name, [f"{root}/src/{each}" for each in files], optional=True, extra_compile_args=ARGUMENTS)
        for name, files in sources.items()
    ]
    command: Any = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.force = True
    command.build_lib = str(folder)
    with tempfile.TemporaryDirectory() as command.build_temp:
        command.ensure_finalized()
        command.run()
    return [built for name in MODULES if (built := Path(command.get_ext_fullpath(name))).exists()]
