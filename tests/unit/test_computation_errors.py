"""Copies of errors that are kept, and raised again."""

import traceback

import pytest

from storeroom.computing.errors import copy_of


class QuotaError(Exception):
    """Made of other arguments than it keeps."""

    def __init__(self, limit, *, user):
        super().__init__(f"{user} has used all {limit}")
        self.limit, self.user = limit, user


class DiskError(OSError):
    """Has a constructor of its own."""

    def __init__(self, number):
        super().__init__(number, "no room", "/data")


class PickyError(Exception):
    """Cannot be made anew."""

    def __new__(cls, *args):
        if args:
            raise TypeError("one argument too many")
        return super().__new__(cls)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1), KeyError("k"), OSError(28, "No space", "/data"), DiskError(28), QuotaError(3, user="ada"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), ImportError("no", name="m", path="p"), StopIteration(7),
        ExceptionGroup("two", [ValueError(1), OSError(2, "x")]), TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_copy_tells_what_the_error_does(error):
    """Type, text, arguments, attributes, notes and causes are the same; the traceback is left behind."""
    error.add_note("while testing")
    error.__cause__ = LookupError("behind")
    with pytest.raises(type(error)) as raised:
        raise error
    copied = copy_of(raised.value)
    assert copied is not error
    assert copied.__traceback__ is None
    assert copied.__cause__.__traceback__ is None
    assert traceback.format_exception_only(copied) == traceback.format_exception_only(error)
    assert (copied.args, vars(copied), repr(copied.__cause__)) == (error.args, vars(error), "LookupError('behind')")
    for name in ("errno", "filename", "reason", "object", "name", "path", "value", "exceptions"):
        assert getattr(copied, name, None) == getattr(error, name, None)


def test_an_error_that_cannot_be_copied_is_itself():
    """Where the class refuses, the error goes on as it is."""
    error = PickyError()
    error.args = (1,)
    assert copy_of(error) is error
