"""Parts of requests and replies that the operations have in common."""

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

from storeroom.backends.parts import PartialError
from storeroom.backends.redis.requests import Command, checked, is_outage, is_wrong_type
from storeroom.storage.envelope import KIND_BYTES, is_packed

__all__ = ["answered", "frame_of", "head_of", "is_envelope", "whole"]

T = TypeVar("T")

_PLAIN: Final = frozenset({bytes, int, type(None)})
"""The types of replies that are no errors."""


def answered(storage_keys: Iterable[str], replies: Iterable[Any]) -> tuple[dict[str, Any], dict[str, Exception]]:
    """Return the replies by storage key, and the errors of those whose server is out of reach."""
    replies = list(replies)
    if _PLAIN.issuperset(map(type, replies)):
        return dict(zip(storage_keys, replies, strict=True)), {}
    told: dict[str, Any] = {}
    lost: dict[str, Exception] = {}
    for storage_key, reply in zip(storage_keys, replies, strict=True):
        error: Any = next(filter(is_outage, reply), None) if type(reply) is tuple else reply
        if is_outage(error):
            lost[storage_key] = error
        else:
            told[storage_key] = reply
    return told, lost


def whole(result: T, lost: Mapping[str, Exception]) -> T:
    """Return the result; raise it as a PartialError if keys are lost."""
    if lost:
        raise PartialError(result, lost)
    return result


def head_of(key: Any) -> Command:
    """Return the command for as many bytes of a value as tell whether it is an envelope."""
    return ("GETRANGE", key, 0, KIND_BYTES - 1)


def is_envelope(head: Any) -> bool:
    """Tell whether a reply to head_of() is the beginning of an envelope."""
    return isinstance(head, bytes) and is_packed(head)


def frame_of(reply: Any) -> bytes:
    """Return the bytes of a reply to GET; none for a list or a hash, which are no entries."""
    return b"" if is_wrong_type(reply) else bytes(checked(reply))
