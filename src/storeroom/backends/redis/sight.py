"""A look at an entry on a server, for explain()."""

from storeroom.backends.redis.operations import Operations, key_bytes, until
from storeroom.backends.redis.requests import Command, Exchange, Request, Use, checked, is_wrong_type
from storeroom.storage.sightings import Sighting, of_frame

__all__ = ["sight"]


def sight(operations: Operations, storage_key: str) -> Exchange[list[Sighting]]:
    """Ask for an entry, and for its time; that is no use of it, where the server can tell these apart (7.2)."""
    key = key_bytes(storage_key)
    commands: list[Command] = [("GET", key), ("PTTL", key)]
    if not operations.is_cluster:  # there the key decides on the server, and these have none
        commands = [("CLIENT", "NO-TOUCH", "ON"), *commands, ("CLIENT", "NO-TOUCH", "OFF")]
    replies = yield Request(commands, Use.READ)
    reply, left = replies if operations.is_cluster else replies[1:3]
    frame = None if reply is None else b"" if is_wrong_type(reply) else bytes(checked(reply))
    return [of_frame("RedisCache", frame, storage_key, operations.codec, until(checked(left)))]
