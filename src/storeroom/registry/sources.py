"""The sources of CACHES where no program has called ``configure()``. The first found wins: see find_source().

A source that is found and wrong is an error, never passed over for the next.
"""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

from storeroom.config import SETTINGS
from storeroom.exceptions import ConfigurationError
from storeroom.registry.program import anybody_writes, find_owner
from storeroom.registry.source import DJANGO, EMBEDDED_DEFAULT, Source
from storeroom.registry.user_folder import own_directory
from storeroom.wording import nearest, shown

__all__ = [
    "embedded", "find_source", "passed_over", "program_directory", "read_file", "table_of",
]  # fmt: skip

# Environment variables: the path of a TOML file; the URL of a cache, also as CACHE_URL_<ALIAS>.
CONFIG_VARIABLE: Final = "STOREROOM_CONFIG"
URL_VARIABLE: Final = "CACHE_URL"

# Roomy for one program, and bounded for the disk that it shares with others.
_EMBEDDED_OPTIONS: Final = {"max_entries": 100_000, "max_bytes": "1GB"}

# The same in the memory of each process.
_MEMORY_OPTIONS: Final = {"max_entries": 10_000, "max_bytes": "64MB"}


def find_source() -> Source:
    """Return the first source there is; the last one, the embedded default, always is.

    Raises:
        ConfigurationError: a source is there but cannot be read.
    """
    return next(source for source in (find() for find in _ORDER) if source is not None)


def passed_over() -> list[str]:
    """Return the sources that are there beside the one that find_source() returns, each as text."""
    found: list[str] = []
    for find in _ORDER[:-1]:
        try:
            source = find()
        except ConfigurationError as error:
            found.append(str(error))
        else:
            found += [] if source is None else [str(source)]
    return found[1:]


def _embedded_default() -> Source:
    directory, reason = own_directory(find_owner().folder_name)
    if directory is not None:
        return Source(EMBEDDED_DEFAULT, directory, {"default": embedded(directory)})
    default = {"BACKEND": "storeroom.backends.locmem.LocMemCache", "OPTIONS": dict(_MEMORY_OPTIONS)}
    return Source(EMBEDDED_DEFAULT, f"in memory, as {reason}", {"default": default})


def embedded(directory: str) -> dict[str, Any]:
    """Return the dict of the embedded default in this directory."""
    backend = "storeroom.backends.filebased.FileBasedCache"
    return {"BACKEND": backend, "LOCATION": directory, "OPTIONS": dict(_EMBEDDED_OPTIONS)}


def _from_django() -> Source | None:
    """Return Django's settings if this program runs Django; Django is never imported for the question."""
    conf: Any = sys.modules.get("django.conf")
    if not hasattr(conf, "settings"):  # Django is not loaded, or just now by another thread
        return None
    module = os.environ.get(conf.ENVIRONMENT_VARIABLE)
    if not (conf.settings.configured or module):
        return None
    try:
        caches = conf.settings.CACHES
    except ImportError as error:
        raise ConfigurationError(
            f"{conf.ENVIRONMENT_VARIABLE} is {module!r}, and Django's settings cannot be imported ({error}); "
            "mend that, or call storeroom.configure(CACHES) to do without Django's settings."
        ) from error
    return Source(DJANGO, getattr(conf.settings, "SETTINGS_MODULE", "") or "settings.configure()", caches)


def _from_config_variable() -> Source | None:
    path = os.environ.get(CONFIG_VARIABLE)
    return read_file(path, f"{CONFIG_VARIABLE} is {path!r}, which") if path else None


def read_file(path: str | os.PathLike[str], subject: str | None = None) -> Source:
    """Return the caches of a TOML file: ``[caches.default]``, in a pyproject.toml ``[tool.storeroom.caches.default]``.

    Args:
        path: the file; a relative LOCATION in it is relative to its directory.
        subject: of the error message, where the file cannot be read.

    Raises:
        ConfigurationError: the file is missing or unreadable, is not TOML, or has no caches in it.
    """
    file = str(import_module("pathlib").Path(path).absolute())
    source = _read_toml(file, _read_bytes(file, subject or f"{str(path)!r}"))
    if source is None:
        table = table_of(os.path.basename(file))
        raise ConfigurationError(f"{file} has no caches in it; expected a table [{table}.default].")
    return source


def _from_pyproject() -> Source | None:
    file = next(_pyproject_files(), None)
    if file is None:
        return None
    content = _read_bytes(file, repr(file))
    # Most projects have nothing for Storeroom: then their file need not be parsed, nor be valid.
    return _read_toml(file, content) if b"storeroom" in content else None


def _pyproject_files() -> Iterator[str]:
    """Yield each pyproject.toml from the current directory upwards.

    The way up ends before a directory like /tmp, where anybody may put a file: one from there could have this program
    run the code of another user.
    """
    try:
        directory = os.getcwd()
    except FileNotFoundError:  # it was removed: there is no project here
        return
    below = ""
    while directory != below and not anybody_writes(directory):
        file = os.path.join(directory, "pyproject.toml")
        if os.path.isfile(file):
            yield file
        directory, below = os.path.dirname(directory), directory


def _read_bytes(file: str, subject: str) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{subject} cannot be read ({reason}); expected a TOML file.") from error


def _read_toml(file: str, content: bytes) -> Source | None:
    """Return the caches of a TOML file, or None where it has no table for them."""
    import tomllib  # noqa: PLC0415 -- 10 ms that only a program with such a file need spend

    try:
        tables = tomllib.loads(content.decode())
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise ConfigurationError(f"{file} is not valid TOML: {error}.") from error
    *outer, last = table_of(os.path.basename(file)).split(".")
    for name in outer:
        tables = tables.get(name, {})
        if not isinstance(tables, dict):
            raise ConfigurationError(f"{name!r} in {file} is {shown(tables)}; expected a table.")
    for name in tables:
        if name != last:
            where = f"[{'.'.join(outer)}] in {file}" if outer else file
            raise ConfigurationError(f"{where} has {name!r}, which does not exist.{nearest(name, [last])}")
    if last not in tables:
        return None
    return Source(os.path.basename(file), file, _folded(tables[last], file), os.path.dirname(file))


def table_of(file_name: str) -> str:
    """Return the name of the table of aliases in a TOML file."""
    return "tool.storeroom.caches" if file_name == "pyproject.toml" else "caches"


def _folded(caches: Any, where: str) -> Any:
    """Return CACHES with the settings' names in Django's capitals, which few people write in TOML."""
    is_dict = isinstance(caches, dict)
    return {alias: _folded_alias(alias, written, where) for alias, written in caches.items()} if is_dict else caches


def _folded_alias(alias: str, written: Any, where: str) -> Any:
    if not isinstance(written, dict):
        return written
    folded: dict[str, Any] = {}
    for name, value in written.items():
        setting = name.upper() if name.upper() in SETTINGS else name
        if setting in folded:
            raise ConfigurationError(
                f"CACHES[{alias!r}] has {setting} twice, in two spellings, in {where}; keep one of them."
            )
        folded[setting] = value
    return folded


def _from_url_variables() -> Source | None:
    # An empty variable counts as unset, as some tools cannot unset one.
    variables = [name for name in sorted(os.environ) if _alias_of(name) and os.environ[name]]
    if not variables:
        return None
    from storeroom.registry.urls import config_from_url  # noqa: PLC0415 -- urllib, which only such a program needs

    caches: dict[str, Any] = {}
    for name in variables:
        alias = _alias_of(name)
        if alias in caches:
            raise ConfigurationError(f"{URL_VARIABLE} and {name} both give the alias {alias!r}; unset one of them.")
        caches[alias] = config_from_url(os.environ[name], where=name)
    if "default" not in caches:
        raise ConfigurationError(
            f"{', '.join(variables)} {'is' if len(variables) == 1 else 'are'} set, but {URL_VARIABLE}, the alias "
            f"'default', is not; set it too, such as {URL_VARIABLE}=file:///var/cache/app"
        )
    return Source("environment variables", ", ".join(variables), caches)


def _alias_of(variable: str) -> str:
    """Return the alias whose URL this variable gives, or "" for every other variable."""
    if variable == URL_VARIABLE:
        return "default"
    prefix = f"{URL_VARIABLE}_"
    return variable.removeprefix(prefix).lower() if variable.startswith(prefix) else ""


def program_directory() -> str:
    """Return the directory of the embedded default, which is this project's own: see ``program``.

    Raises:
        ConfigurationError: there is no private folder that it could lie in. The text goes on after "LOCATION".
    """
    directory, reason = own_directory(find_owner().folder_name)
    if directory is None:
        raise ConfigurationError(f"names a table, and no database, for which {reason}; expected a path or a URL.")
    return directory


# In their order: the environment, which a deployment sets, counts before the file that came with the code.
_ORDER: Final = (_from_django, _from_config_variable, _from_url_variables, _from_pyproject, _embedded_default)
