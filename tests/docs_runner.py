"""Runs a page of the documentation: its code is executed, and the results that it shows must come out.

A page is read from top to bottom in a Python process of its own, in an empty directory::

    python -c "from docs_runner import main; main()" docs/timeouts.md

=============  ==============================================================================
block          what happens
=============  ==============================================================================
``python``     executed in ``__main__``, one block after the other, as somebody would paste them
``console``    each line that begins with ``$`` goes to a shell; the lines below it must be printed
``toml``       read as a configuration, if it has caches in it
other          left alone
=============  ==============================================================================

The words of a block:

- ``expression  # -> 'hello'``: the repr of the result; behind ``print()``, the text printed.
- ``statement  # raises KeyNotFoundError``, with or without ``: the message``.
- ``…`` in any of these, and in a console's output, stands for any text; so does a line of it.
- ``$ command  # exits 1``: the exit code, else 0 is expected.
- A first line ``# shop.py`` makes the block a file of that name; a Python one is also imported.
- ``<!-- needs: fastapi -->`` before a block: only compiled where that module is not installed.
- ``<!-- not run: why -->`` before a block: only compiled.

Paths below /var/cache lie below the page's own directory, so that any user may run this. Addresses of servers are
those of servers that the tests have started: `SERVERS` names the variable that tells them.
"""

import ast
import importlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

__all__ = ["SERVERS", "Block", "blocks_of", "main"]

_FENCE: Final = re.compile(r"^( *)(```+)\s*([\w-]*)\s*$")
_DIRECTIVE: Final = re.compile(r"<!-- (not run|needs): (.+?) -->")
_FILE_NAME: Final = re.compile(r"# ([\w.-]+\.(?:py|toml))$")
_EXPECTED: Final = re.compile(r"# -> (.+)$")
_RAISES: Final = re.compile(r"# raises (\w+)(?:: (.+))?$")
_EXITS: Final = re.compile(r"\s+# exits (\d+)$")

#: A variable of the environment: a JSON object from an address on the pages to the one of a running server.
SERVERS: Final = "STOREROOM_DOCS_SERVERS"

#: Programs that a page may call but a test may not: they install, build or need a checkout. The first words of a line.
NOT_CALLED: Final = {"cd", "git", "make", "pip", "python3 -m pip", "python3 -m venv", "sudo"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block of a page.

    Attributes:
        page: the file.
        line: number of the line behind the opening fence.
        language: the word behind the fence.
        text: the lines between the fences, indentation of the fence removed.
        needs: a module without which the block is only compiled; "" for none.
        not_run: why it is not run; "" if it is.
    """

    page: Path
    line: int
    language: str
    text: str
    needs: str = ""
    not_run: str = ""

    @property
    def file_name(self) -> str:
        """The name of the file that the block is, or ""."""
        found = _FILE_NAME.match(self.text.partition("\n")[0])
        return found[1] if found else ""

    @property
    def is_run(self) -> bool:
        """Whether it is executed, not only compiled."""
        return not self.not_run and (not self.needs or find_spec(self.needs) is not None)


def blocks_of(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, in order."""
    lines = enumerate(page.read_text("utf-8").splitlines(), start=1)
    directives: dict[str, str] = {}
    for number, line in lines:
        if found := _DIRECTIVE.match(line.strip()):
            directives[found[1]] = found[2]
        elif fence := _FENCE.match(line):
            inside = []
            for _, inner in lines:
                if inner.strip() == fence[2]:
                    break
                inside.append(inner)
            text = textwrap.dedent("\n".join(inside))
            needs, not_run = directives.pop("needs", ""), directives.pop("not run", "")
            yield Block(page, number + 1, fence[3], text, needs, not_run)
        elif line.strip():
            directives.clear()


# Comparing ----------------------------------------------------------------------------------


def matches(expected: str, actual: str) -> bool:
    """Tell whether a text is as expected, where ``…`` stands for anything and white space does not count."""
    parts = (r"\s+".join(map(re.escape, part.split())) for part in re.split(r"\s*…\s*", expected.strip()))
    return re.fullmatch(r".*?".join(parts), " ".join(actual.split()), re.DOTALL) is not None


class _Checks:
    """The checks that the comments of Python blocks are turned into calls of."""

    def __init__(self, page: Path) -> None:
        self._page = page

    def _require(self, expected: str, actual: str, line: int) -> None:
        actual = _shown(actual)
        if not matches(expected, actual):
            message = f"{self._page}:{line}: shown is\n    {expected}\nbut it is\n    {actual}"
            raise AssertionError(message)

    def result(self, value: object, expected: str, line: int) -> None:
        """Compare the repr of a value."""
        self._require(expected, repr(value), line)

    def printed(self, *values: object, expected: str, line: int) -> None:
        """Stand for a print() whose text is compared."""
        self._require(expected, " ".join(map(str, values)), line)

    def raises(self, name: str, message: str, line: int) -> "_Raises":
        """Return a context that expects an error."""
        return _Raises(self, name, message, line)


class _Raises:
    def __init__(self, checks: _Checks, name: str, message: str, line: int) -> None:
        self._checks, self._name, self._message, self._line = checks, name, message, line

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        actual = "nothing" if error is None or kind is None else f"{kind.__name__}: {error}"
        self._checks._require(f"{self._name}: {self._message or '…'}", actual, self._line)
        return True


class _Instrument(ast.NodeTransformer):
    """Turns the comments of a block into checks."""

    def __init__(self, comments: dict[int, str]) -> None:
        self._comments = comments
        self.used: set[int] = set()

    def visit(self, node: ast.AST) -> Any:
        """Wrap a statement that is followed by a comment with its result."""
        # Inner statements first: a comment at the end of a block belongs to its last line alone.
        node = self.generic_visit(node)
        line = getattr(node, "end_lineno", 0)
        if not isinstance(node, ast.stmt) or line not in self._comments or line in self.used:
            return node
        comment = self._comments[line]
        if found := _EXPECTED.match(comment):
            self.used.add(line)
            return self._compared(node, found[1], line)
        if found := _RAISES.match(comment):
            self.used.add(line)
            check = f"_checks.raises({found[1]!r}, {found[2] or ''!r}, {line})"
            wrapped = ast.parse(f"with {check}: pass").body[0]
            assert isinstance(wrapped, ast.With)
            wrapped.body = [node]
            return _at(wrapped, node)
        return node

    @staticmethod
    def _compared(node: ast.stmt, expected: str, line: int) -> ast.stmt:
        assert isinstance(node, ast.Expr), f"line {line}: only an expression has a result to show"
        value = node.value
        if isinstance(value, ast.Call) and ast.unparse(value.func) == "print":
            call = ast.parse(f"_checks.printed(expected={expected!r}, line={line})", mode="eval").body
            assert isinstance(call, ast.Call)
            call.args = value.args
        else:
            call = ast.parse(f"_checks.result(None, {expected!r}, {line})", mode="eval").body
            assert isinstance(call, ast.Call)
            call.args[0] = value
        return _at(ast.Expr(call), node)


def _at(new: ast.stmt, old: ast.stmt) -> ast.stmt:
    """Give the new statement the lines of the old one, so that a traceback points into the page."""
    for node in ast.walk(new):
        if "lineno" in node._attributes and not hasattr(node, "lineno"):
            ast.copy_location(node, old)
    ast.copy_location(new, old)
    return ast.fix_missing_locations(new)


def instrumented(block: Block, text: str) -> ast.Module:
    """Return the code of a Python block, with its comments turned into checks.

    Raises:
        AssertionError: a comment that looks like a check belongs to no statement.
    """
    padded = "\n" * (block.line - 1) + text  # so that line numbers are those of the page
    tokens = tokenize.generate_tokens(io.StringIO(padded).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    instrument = _Instrument(comments)
    module = instrument.visit(ast.parse(padded, str(block.page)))
    for line, comment in comments.items():
        if _EXPECTED.match(comment) or _RAISES.match(comment):
            assert line in instrument.used, f"{block.page}:{line}: {comment!r} belongs to no statement that ends there"
    assert isinstance(module, ast.Module)
    return module


# Running, in the page's own process -----------------------------------------------------------


def _moved(text: str) -> str:
    """Return the text with paths that it may write to, and servers that are there."""
    text = text.replace("/var/cache", f"{Path.cwd()}/var/cache")
    for shown, real in _servers().items():
        text = text.replace(shown, real)
    return text


def _shown(text: str) -> str:
    """Undo _moved() in the output of a program."""
    text = text.replace(f"{Path.cwd()}/var/cache", "/var/cache")
    for shown, real in _servers().items():
        text = text.replace(real, shown)
    return text


def _servers() -> dict[str, str]:
    found: dict[str, str] = json.loads(os.environ.get(SERVERS, "{}"))
    return found


def _run_python(block: Block, checks: _Checks) -> None:
    text = _moved(block.text)
    if not block.is_run:
        compile(text, str(block.page), "exec")
        return
    if block.file_name:
        Path(block.file_name).write_text(text, "utf-8")
        importlib.invalidate_caches()
        importlib.import_module(block.file_name.removesuffix(".py"))
        return
    namespace = vars(sys.modules["__main__"])  # where pickle looks for the classes that a page defines
    namespace["_checks"] = checks
    exec(compile(instrumented(block, text), str(block.page), "exec"), namespace)
    if "CACHES" in namespace:
        from storeroom.registry.aliases import read_caches

        read_caches(namespace.pop("CACHES"))


def _run_toml(block: Block) -> None:
    path = Path(block.file_name or "caches.toml")
    path.write_text(_moved(block.text), "utf-8")
    if "caches" in block.text:
        from storeroom.registry import sources
        from storeroom.registry.aliases import read_caches

        source = sources.read_file(path)
        read_caches(source.caches, source.directory)
    if not block.file_name:
        path.unlink()


def _commands(block: Block) -> Iterator[tuple[int, str, str]]:
    """Yield line, command and shown output."""
    command, line = "", 0
    shown: list[str] = []
    for number, text in enumerate(block.text.splitlines(), start=block.line):
        if text.startswith("$ "):
            if command:
                yield line, command, "\n".join(shown)
            command, line, shown = text.removeprefix("$ "), number, []
        else:
            shown.append(text)
    if command:
        yield line, command, "\n".join(shown)


def _run_console(block: Block) -> None:
    for line, command, shown in _commands(block):
        if any(re.match(rf"{re.escape(name)}\b", command) for name in NOT_CALLED):
            continue
        if command.startswith("export "):
            name, _, value = shlex.split(command)[1].partition("=")
            os.environ[name] = _moved(value)
            continue
        exits = _EXITS.search(command)
        ran = subprocess.run(
            ["sh", "-c", _moved(_EXITS.sub("", command))],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        where = f"{block.page}:{line}: {command!r}"
        output = _shown(ran.stdout)
        assert ran.returncode == (int(exits[1]) if exits else 0), f"{where} exits {ran.returncode}:\n{output}"
        assert "Traceback" not in output, f"{where}:\n{output}"
        assert not shown.strip() or matches(shown, output), f"{where}: shown is\n{shown}\nbut it prints\n{output}"


def _make_programs() -> None:
    """Put ``storeroom`` and ``python`` of this interpreter into the path."""
    folder = Path("bin").absolute()
    folder.mkdir()
    for name, arguments in {"storeroom": " -m storeroom", "python": "", "python3": ""}.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)}{arguments} "$@"\n', "utf-8")
        program.chmod(0o755)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


def main() -> None:
    """Run the page that the first argument names, in the current directory; print what was only compiled."""
    page = Path(sys.argv[1])
    sys.path[0] = ""  # the files of the page can be imported, and those beside this one cannot
    _make_programs()
    left_out = []
    for block in blocks_of(page):
        if block.language == "python":
            _run_python(block, _Checks(page))
        elif block.language == "toml" and block.is_run:
            _run_toml(block)
        elif block.language == "console" and block.is_run:
            _run_console(block)
        if not block.is_run:
            left_out.append(f"line {block.line}: {block.not_run or f'{block.needs} is not installed'}")
    sys.stdout.write(json.dumps(left_out))
