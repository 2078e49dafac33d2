"""The keys and tags of @cached: their form, the calls they tell apart, and templates that do not fit."""

import os
import re
import subprocess
import sys
import zipapp
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeroom import cached
from storeroom.exceptions import ConfigurationError, UnkeyableArgumentError

if TYPE_CHECKING:
    from nowhere import Unknown

HERE = __name__


class User:
    def __init__(self, number: int, owner: "User | None" = None) -> None:
        self._number, self.owner, self.asked = number, owner, 0

    @property
    def number(self) -> int:
        self.asked += 1
        return self._number

    def __format__(self, spec: str) -> str:
        return spec * self._number


def key_of(function: Callable[..., Any], **options: Any) -> Callable[..., str]:
    """The function's keys under these options."""
    made: Callable[..., str] = cached(**options)(function).key
    return made


# By default -------------------------------------------------------------------------------------


def load(number: Any, language: Any = "en", /, *more: Any, strict: bool = False, **options: Any) -> None:
    pass


def find(number: Any, language: Any = "en") -> None:
    pass


@pytest.mark.parametrize("options", [{}, {"key": "{number},{language}"}, {"key": "{number!r},{language}"}], ids=repr)
def test_a_number_that_python_does_not_write_is_told(options: dict[str, Any]) -> None:
    """A whole number beyond sys.get_int_max_str_digits() is an error that says so; other errors are as they are."""
    for number in (10**5000, -(10**5000), [10**5000], range(10**5000), Fraction(1, 10**5000)):
        with pytest.raises(UnkeyableArgumentError, match=r"find\(\): .* more digits than Python writes"):
            key_of(find, **options)(number)
    with pytest.raises(ValueError, match="Unknown format code"):
        key_of(find, key="{number:d},{language}")("7")


def test_the_default_key_is_the_call_written_down() -> None:
    """The default key is the qualified name with every argument by its parameter, defaults included."""
    assert key_of(find)(7) == f"{HERE}.find(number=7, language='en')"
    assert key_of(load)(7, "fr", 1, "2", strict=True, b=1, a=2) == (
        f"{HERE}.load(number=7, language='fr', *more=(1, '2'), strict=True, **options={{'a': 2, 'b': 1}})"
    )


def test_ignored_parameters_are_left_out() -> None:
    """Ignored parameters do not occur in the key, and may be of any type."""
    assert key_of(find, ignore=["language"])(7) == f"{HERE}.find(number=7)"
    assert key_of(find, ignore=["number"])(7) == f"{HERE}.find(language='en')"
    assert key_of(find, ignore=("number", "language"))(object()) == f"{HERE}.find()"


def test_calls_that_mean_the_same_have_one_key() -> None:
    """Positional, named and default arguments with the same values give one key."""
    key = key_of(find)
    assert len({key(7), key(7, "en"), key(number=7), key(language="en", number=7), key(7, language="en")}) == 1


ALIKE = [
    1,
    "1",
    True,
    1.0,
    None,
    "None",
    b"1",
    ("a", "b"),
    "a,b",
    "('a', 'b')",
    ["a", "b"],
    "a', language='b",
    "\\",
    "'",
]


def test_calls_that_differ_have_different_keys() -> None:
    """Arguments that look alike but differ in type or structure give different keys."""
    key = key_of(find)
    calls = [(one, other) for one in ALIKE for other in ALIKE]
    assert len({key(*call) for call in calls}) == len(calls)
    rest = key_of(load)
    assert len({rest(1, 2), rest(1, 2, 3), rest(1, 2, (3,)), rest(1, 2, x=3), rest(1, 2, options={"x": 3})}) == 5


def test_names_of_parameters_are_free() -> None:
    """A parameter may have any name, those of builtins and of internals included."""

    def odd(_0: Any, type: Any, str: Any, *, __call: Any = None, _value: Any = 1, self: Any = 2) -> None:  # noqa: A002
        pass

    assert key_of(odd)("a", {"b"}, "c").endswith("odd(_0='a', type=set('b'), str='c', __call=None, _value=1, self=2)")
    assert key_of(odd, key="{_0}:{type}:{str}:{__call}:{_value}:{self}")("a", 1, "c") == "a:1:c:None:1:2"


def test_defaults_are_those_of_the_function() -> None:
    """A default enters the key as the object it is, and annotations are never evaluated."""
    default = date(2026, 11, 26)

    def since(day: date = default, user: "Unknown | None" = None) -> "Unknown":
        raise NotImplementedError

    assert key_of(since)().endswith(".since(day=date('2026-11-26'), user=None)")


MISSING = object()


def fetch(number: Any, default: Any = MISSING) -> None:
    pass


def test_a_default_that_nobody_passed_needs_no_text() -> None:
    """A sentinel as a default is written as the default, apart from every value; a passed object is refused."""
    for template in (None, "{number}:{default!r}"):
        key = key_of(fetch, key=template)
        assert key(7) == key(7, MISSING) != key(7, "<default>")
        assert len({key(7), key(7, "<default>"), key(7, None), key(7, (MISSING.__class__,))}) == 4
        with pytest.raises(UnkeyableArgumentError, match="the argument default is, or holds, an instance of object"):
            key(7, object())
    assert key_of(fetch)(7) == f"{HERE}.fetch(number=7, default=<default>)"


def test_an_argument_that_holds_itself_is_told() -> None:
    """An argument without an end is a mistake of the caller, and no RecursionError."""
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnkeyableArgumentError, match=r"the argument number holds itself, or .* key=…, such as"):
        key_of(find)(endless)


def test_an_argument_without_a_key_is_told() -> None:
    """An argument that cannot be keyed raises with the function, the parameter, the type and three remedies."""
    with pytest.raises(UnkeyableArgumentError) as raised:
        key_of(find)(7, language=[User(1)])
    message = str(raised.value)
    assert message.startswith(
        f"{HERE}.find(): the argument language is, or holds, an instance of {HERE}.User, of which no key"
    )
    for remedy in ("key=…, such as {language.id}", "__cache_key__()", "ignore=['language']"):
        assert remedy in message


def test_a_function_within_a_function_has_a_key_if_it_uses_nothing_of_that() -> None:
    """A closure over outer variables needs a key, since each outer call makes another function of its name."""

    def apart(number: int) -> int:
        return apart(number - 1) if number else 0

    assert key_of(apart)(1).endswith(".<locals>.apart(number=1)")

    outer = 5

    def closing(number: int) -> int:
        return number + outer

    with pytest.raises(ConfigurationError, match=r"closing, as it uses outer of the function around it.*Pass key="):
        cached(closing)
    assert key_of(closing, key="sum:{number}:5")(1) == "sum:1:5"


def test_a_lambda_has_no_key_of_its_own() -> None:
    """A lambda without a key raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="it has no name of its own"):
        cached(lambda number: number)


PROGRAM = """
import sys
import zipapp
from dataclasses import dataclass
from storeroom import cached

@cached
def load(names, options): pass

print(load.key({"b", "a", None}, {"y": frozenset("xyz"), "x": 1}))
"""


def test_keys_are_the_same_in_every_process(tmp_path: Path) -> None:
    """A key depends on no hash seed; a script's begins with its path, as every script is called __main__.

    What cannot be imported by its name has a fingerprint of its code behind the path.
    """
    (tmp_path / "shop").mkdir()
    script, other = tmp_path / "shop" / "report.py", tmp_path / "other.py"
    script.write_text(PROGRAM)
    other.write_text(PROGRAM)

    def printed(*arguments: str, seed: str = "1") -> str:
        return subprocess.run(
            [sys.executable, *arguments],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": os.environ.get("PYTHONPATH", "")},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    call = "load(names=set('a', 'b', None), options={'x': 1, 'y': frozenset('x', 'y', 'z')})"
    found = printed(str(script))
    assert found == printed("shop/report.py", seed="2")
    assert re.fullmatch(rf"{re.escape(str(script))}#[0-9a-f]{{16}}\.{re.escape(call)}", found)
    assert printed(str(other)) == found.replace(str(script), str(other))
    assert printed("-m", "shop.report") == printed("-c", "import shop.report", seed="3") == f"shop.report.{call}"
    assert printed("-c", PROGRAM) == found.replace(str(script), f"{tmp_path}/__main__")


def test_a_zipapp_and_a_script_are_two_programs(tmp_path: Path) -> None:
    """Every zipapp is called __main__, too: its path stands in the key, and that of its classes."""
    program = (
        "from dataclasses import dataclass\nfrom storeroom import cached\n@dataclass\nclass Point:\n    x: int\n"
        "@cached\ndef load(point): pass\nprint(load.key(Point(1)))\n"
    )
    keys = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__main__.py").write_text(program)
        zipapp.create_archive(tmp_path / name, tmp_path / f"{name}.pyz")
        for started in (f"{name}.pyz", name):
            run = subprocess.run([sys.executable, started], cwd=tmp_path, capture_output=True, text=True, check=True)
            assert f"(point={tmp_path}/{started}/__main__.py.Point(x=1))" in run.stdout
            keys.add(run.stdout)
    assert len(keys) == 4


CODE = """
from storeroom import cached
RATE = 2
def helper(x):
    return x
class Point: pass
@cached
def price(x, tax=1, *, fee=0):
    def inner(y): return helper(y) * RATE
    return inner(x) in {"a", "b"}
"""


def key_in(code: str, **names: object) -> str:
    """Return the key of ``price(1)`` in a module that cannot be imported, as a notebook or an interpreter is."""
    main = ModuleType("__main__")
    vars(main).update(names)
    exec(compile(code, "<cell>", "exec"), vars(main))
    return str(main.price.key(1, tax=0, fee=0))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RATE = 2", "RATE = 3"),
        ("return x", "return -x"),
        ("tax=1", "tax=2"),
        ("fee=0", "fee=1"),
        ('"b"', '"c"'),
        ("helper(y)", "(helper(y) + 0)"),
    ],
)
def test_a_function_that_was_edited_and_run_again_has_other_keys(old: str, new: str) -> None:
    """Its code, functions in it, defaults, and the constants and functions of its module that it reads count."""
    assert key_in(CODE.replace(old, new)) != key_in(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("RATE = 2", "# a comment\n\nRATE = 2"), ("class Point: pass", "other = 1"), ('{"a", "b"}', '{"b", "a"}')],
)
def test_a_function_that_is_run_again_unchanged_has_the_keys_that_it_had(old: str, new: str) -> None:
    """Lines above it, comments and names that it does not read count for nothing."""
    assert key_in(CODE.replace(old, new)) == key_in(CODE)
    assert key_in(CODE, __file__="<stdin>") == key_in(CODE)


def test_a_counter_that_a_function_sets_itself_is_no_part_of_its_keys() -> None:
    """A name of the module that the function assigns to is no constant."""
    code = CODE.replace("    def inner", "    global RATE\n    RATE += 1\n    def inner").replace("* RATE", "* 1")
    assert key_in(code) == key_in(code.replace("RATE = 2", "RATE = 3"))


def test_functions_that_call_each_other_have_keys() -> None:
    """Two functions that name each other, and one that names itself, have fingerprints."""
    calls = (
        "def odd(x): return price(x)\nfrom storeroom import cached\n@cached\ndef price(x, tax, fee): return odd(x)\n"
    )
    assert key_in(calls) != key_in(calls.replace("return odd(x)", "return odd(-x)"))


# Templates --------------------------------------------------------------------------------------


@dataclass
class Point:
    x: int
    y: int


@pytest.mark.parametrize(
    ("template", "argument", "key"),
    [
        ("user:{number}", 7, "user:7"),
        ("user:{number}", "7", "user:7"),
        ("user:{number!r}", 7, "user:7"),
        ("user:{number!r}", "7", "user:'7'"),
        ("user:{number!s}", Point(1, 2), "user:Point(x=1, y=2)"),
        ("user:{number}", Point(1, 2), f"user:{HERE}.Point(x=1, y=2)"),
        ("user:{number:05d}", 7, "user:00007"),
        ("user:{number:%Y-%m}", date(2026, 11, 26), "user:2026-11"),
        ("user:{number:x}", User(3), "user:xxx"),
        ("user:{number.number}", User(3), "user:3"),
        ("user:{number.owner.number}!", User(3, User(4)), "user:4!"),
        ("user:{number.owner}", User(3), "user:None"),
        ("{{{number}}}", "a:b/c 100%", "{a:b/c 100%}"),
        ("{number}:{number}", "a:b%", "a%3Ab%25:a%3Ab%25"),
        ("{number} · {number}", "a·b", "a%C2%B7b · a%C2%B7b"),
        ("{number}-{number!r}", -7, "%2D7-%2D7"),
        ("{number}'{number:d}", 7, "7'7"),
    ],
)
def test_templates_are_filled_in(template: str, argument: Any, key: str) -> None:
    """A template is filled in with attributes, formats and conversions, and escapes its separators."""
    assert key_of(find, key=template, ignore=["language"])(argument) == key


def test_an_attribute_is_asked_for_once() -> None:
    """A call reads an attribute that its template names once."""
    user = User(3)
    assert key_of(find, key="{number.number}:{language}")(user) == "3:en"
    assert user.asked == 1


@given(st.tuples(st.text("a:%-x3A", max_size=4), st.text("a:%-x3A", max_size=4)), st.sampled_from("01234"), st.data())
def test_templates_do_not_mix_arguments_up(call: tuple[str, str], template: str, data: st.DataObject) -> None:
    """Two calls of a template with two fields have one key only if their arguments are equal."""
    templates = ["{a}:{b}", "x{a}-x:{b}x", "{a}%3A:{b}", ":{a}-{b}:", "{a}: {b}%"]
    key = key_of(lambda a, b: None, key=templates[int(template)])
    other = data.draw(st.tuples(st.text("a:%-x3A", max_size=4), st.text("a:%-x3A", max_size=4)))
    assert (key(*call) == key(*other)) == (call == other)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("user:{nubmer}:{language}", r"names 'nubmer', which is no parameter; its .* Did you mean 'number'\?"),
        ("user:{number}", r"leaves out the parameter 'language', .* in ignore=\['language'\]"),
        ("user:{number}{language}", r"has no separator between \{number\} and \{language\}"),
        ("user:{number}x1{language}", "has no separator between"),
        ("user:{number}%{language}", "has no separator between"),
        ("user:{number", "cannot be read"),
        ("user:{}:{language}", r"has the field \{\}; expected the name of a parameter"),
        ("user:{0}:{language}", r"has the field \{0\}"),
        ("user:{number[0]}:{language}", r"has the field \{number\[0\]\}"),
        ("user:{number.class}:{language}", r"has the field \{number\.class\}"),
        ("user:{number!a}:{language}", "has the conversion !a; expected !r or !s"),
        ("user:{number!r:5}:{language}", "has both a conversion and a format"),
        ("user:{number:{language}}", "has a field within the format"),
    ],
)
def test_templates_that_do_not_fit_are_told_when_it_is_decorated(template: str, message: str) -> None:
    """A template that is ambiguous, incomplete or malformed raises at decoration."""
    with pytest.raises(ConfigurationError, match=message) as raised:
        key_of(find, key=template)
    assert str(raised.value).startswith(f"{HERE}.find: key={template!r} ")


@pytest.mark.parametrize("template", ["{number}", "{number!s}", "{number.owner.owner}"])
def test_a_template_writes_no_address(template: str) -> None:
    """A template field whose text would be an address in memory raises UnkeyableArgumentError."""

    class Plain:
        pass

    user = User(1, User(2, Plain()))  # type: ignore[arg-type]
    with pytest.raises(
        UnkeyableArgumentError, match=r"the argument number(\.owner\.owner)? is, or holds, (an instance|something) of "
    ):
        key_of(find, key=template, ignore=["language"])(Plain() if template == "{number!s}" else user)


def test_a_function_may_make_the_key() -> None:
    """A key function gets the call's arguments; a result that is no text is written down as text."""
    assert key_of(find, key=lambda number, language="en": f"user:{number}")(7) == "user:7"
    assert key_of(find, key=lambda number, language="en": ("user", number), version=2)(7) == "('user', 7)"
    with pytest.raises(
        UnkeyableArgumentError, match=rf"{HERE}\.find\(\): the function .* as key returned an instance of object"
    ):
        key_of(find, key=lambda *_: object())(7)


# Tags -------------------------------------------------------------------------------------------


def tags_of(**options: Any) -> Callable[..., Any]:
    made: Callable[..., Any] = cached(**options)(find)._tags_of
    return made


def test_tags_are_templates_too() -> None:
    """Templates of tags escape nothing and may leave out parameters, to match invalidate_tags()."""
    assert list(tags_of(tags=["all", "user:{number}", "{number}{language}"])("a:b")) == ["all", "user:a:b", "a:ben"]
    assert list(tags_of(tags=("user:{number.number}",))(User(3))) == ["user:3"]


def test_a_function_may_make_the_tags() -> None:
    """A function of tags gets the call's arguments, and its tags become text."""
    assert list(tags_of(tags=lambda number, language="en": (number, language))(7)) == ["7", "en"]
