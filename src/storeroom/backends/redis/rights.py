"""Rights that a cache's user needs on the server: the commands that the cache sends, and the keys that they are for.

Each right has a trial, a command that does nothing: for a key that nobody has, or with an argument that is none. The
server looks at the rights first.
"""

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Final

from storeroom.backends.redis.location import Target
from storeroom.backends.redis.names import literal
from storeroom.backends.redis.operations import key_bytes
from storeroom.backends.redis.requests import Command, is_forbidden
from storeroom.backends.redis.scripts import Script
from storeroom.engines.background import submit

__all__ = ["FirstLook", "Right", "Rights"]

logger = logging.getLogger("storeroom.outages")

_SCRIPTS: Final = frozenset({"+evalsha", "+eval"})
"""Rules without which the cache works if it may use WATCH and MULTI, in one round trip more."""

_NOTHING: Final = Script("return 0")


@dataclass(frozen=True, slots=True)
class Right:
    """The right to run a command, `name` as in a rule of an ACL; `reads` if a replica is asked for it, too."""

    name: str
    trial: Command
    reads: bool = False


class Rights:
    """The rights that one alias needs.

    Attributes:
        pattern: of the names of all its keys.
        user: that it logs in as, or a name for one.
    """

    def __init__(self, target: Target, options: Mapping[str, Any], start: str) -> None:
        """Read the rights off the servers, the options, and the beginning of the cache's storage keys."""
        self.user = target.servers[0].username or "storeroom"
        # The rules of an ACL are told apart by spaces.
        shown = (each if each.isprintable() and each != " " else "?" * len(key_bytes(each)) for each in literal(start))
        self.pattern = f"~{''.join(shown)}*"
        self._key = key_bytes(f"\x00none\x00{start}")
        self._all = tuple(_rights_of(target, options, self._key, start))

    def least(self) -> tuple[str, ...]:
        """Return the words of the least rule that gives them all."""
        return ("ACL", "SETUSER", self.user, "on", self.pattern, *(f"+{right.name}" for right in self._all))

    def of(self, role: str) -> Sequence[Right]:
        """Return those that a server of this role is asked for."""
        return [right for right in self._all if right.reads or role != "replica"]

    def without_scripts(self) -> Sequence[Right]:
        """Return the rights that take the part of those for scripts."""
        key = self._key
        trials: Sequence[Command] = (("WATCH", key), ("UNWATCH",), ("MULTI",), ("EXEC",))
        return [Right(str(trial[0]).lower(), trial) for trial in trials]

    def lacking(self, role: str, ask: Callable[[Sequence[Command]], Sequence[Any]]) -> tuple[str, ...]:
        """Return the rules that are missing at a server, which `ask` sends the trials to."""
        lacks = self._denied(self.of(role), ask)
        if _SCRIPTS.intersection(lacks) and not self._denied(self.without_scripts(), ask):
            return tuple(rule for rule in lacks if rule not in _SCRIPTS)
        return lacks

    def _denied(self, tried: Sequence[Right], ask: Callable[[Sequence[Command]], Sequence[Any]]) -> tuple[str, ...]:
        replies = ask([right.trial for right in tried])
        denied = [(right, str(reply)) for right, reply in zip(tried, replies, strict=True) if is_forbidden(reply)]
        keys = any("access" in text and "key" in text for _, text in denied)
        commands = [f"+{right.name}" for right, text in denied if "access" not in text]
        return (*([self.pattern] if keys else []), *commands)


class FirstLook:
    """Names, in one error of the log, all rights that caches lack, as soon as their server is first connected to.

    Args:
        ask: sends commands to a server that takes writes, on a connection of their own, and returns the replies.
        errors: that it raises where the server is out of reach: then the first refusal tells.
    """

    def __init__(
        self, name: str, ask: Callable[[Sequence[Command]], Sequence[Any]], errors: tuple[type[Exception], ...]
    ) -> None:
        self._name, self._ask, self._errors = name, ask, errors
        self._waiting: dict[str, tuple[Rights, str]] = {}
        self._seen: set[str] = set()
        self._is_connected = False

    def add(self, rights: Rights, alias: str) -> None:
        """Look at the rights of a cache, too; handles of one alias need the same."""
        if rights.pattern not in self._seen:
            self._seen.add(rights.pattern)
            self._waiting[rights.pattern] = rights, alias
            if self._is_connected:
                self.begin()

    def begin(self) -> None:
        """Look at those that wait for it, in the background: nobody's operation takes longer."""
        self._is_connected = True
        if self._waiting:
            submit(self._look, Context())

    def _look(self) -> None:
        while self._waiting:
            _, (rights, alias) = self._waiting.popitem()
            try:
                lacks = rights.lacking("primary", self._ask)
            except self._errors:
                continue
            if lacks:
                subject = f"CACHES[{alias!r}]" if alias else "a cache"
                logger.error(
                    "%s gives %s no right to %s: what needs it raises StorageError. All that this cache needs: %s",
                    *(self._name, subject, ", ".join(lacks), shlex.join(rights.least())),
                )


def _rights_of(target: Target, options: Mapping[str, Any], key: bytes, start: str) -> Iterator[Right]:
    if target.kind != "cluster":
        yield Right("mget", ("MGET", key), reads=True)
        yield Right("rename", ("RENAME", key, key))
    yield Right("ping", ("PING",), reads=True)
    yield Right("get", ("GET", key), reads=True)
    yield Right("getrange", ("GETRANGE", key, 0, 0), reads=True)
    yield Right("pttl", ("PTTL", key), reads=True)
    yield Right("set", ("SET", key, b"", "XX"))
    yield Right("unlink", ("UNLINK", key))
    yield Right("scan", ("SCAN", 0, "MATCH", key_bytes(f"{literal(start)}*"), "COUNT", 1))
    yield Right("evalsha", ("EVALSHA", _NOTHING.digest, 1, key))
    yield Right("eval", ("EVAL", _NOTHING.source, 1, key))
    yield Right("incrby", ("INCRBY", key, b""))
    yield Right("pexpire", ("PEXPIRE", key, 1))
    yield Right("persist", ("PERSIST", key))
    yield Right("exists", ("EXISTS", key))
    if target.kind == "cluster":
        yield Right("cluster|slots", ("CLUSTER", "SLOTS"))
        yield Right("asking", ("ASKING",))
    if target.kind == "sentinel":
        yield Right("role", ("ROLE",))
    if len(target.servers) > 1 and target.kind == "server":
        yield Right("info", ("INFO", "replication"), reads=True)
    if db := target.servers[0].db:
        yield Right("select", ("SELECT", db), reads=True)
    if client_name := dict(target.options)["client_name"]:
        yield Right("client|setname", ("CLIENT", "SETNAME", client_name), reads=True)
    if options.get("near") is not None:
        yield Right("client|tracking", ("CLIENT", "TRACKING", "OFF"), reads=True)
