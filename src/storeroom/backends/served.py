"""A server as its engine and its caches know it: its health, its refusals, and the meaning of its driver's errors."""

from collections.abc import Sequence
from typing import Any, Final

from storeroom.backends.recovery import Dropped
from storeroom.base import BaseCache
from storeroom.engines import Engine
from storeroom.engines.counts import total
from storeroom.exceptions import ValueTypeError
from storeroom.storage.outages import CircuitBreaker

__all__ = ["NetworkEngine", "ServedCache"]

_ANSWERED: Final = (KeyError, ValueTypeError)
"""Errors of a hook that show an answer of the server: there is no entry, or none that can be counted on."""


class NetworkEngine(Engine):
    """An engine with a server behind it, and a circuit breaker before it.

    Attributes:
        refusals: writes for which the server had no room, which is no outage.
        dropped: keys of writes that an outage has dropped.
        answers: operations of this process that the server has answered.
        refused_with: the text of the last refusal in the log.
        foreign: the remedy where a server of another kind was found there; "" for none.
        look_at: monotonic time from which it may be looked for again.
        spoken: the protocol to be expected, host and port of a server; "" for no host.
    """

    can_be_forgotten = True
    spoken: tuple[str, str, int] = ("", "", 0)
    answers = 0
    refused_with = ""
    foreign = ""
    look_at = 0.0

    def __init__(self, name: str) -> None:
        """Take the server's name, without password, for the log."""
        super().__init__()
        self.breaker = CircuitBreaker(name)
        self.refusals = 0
        self.dropped = Dropped()

    @property
    def has_answered(self) -> bool:
        """Whether the server has ever answered this process."""
        return self.answers > 0

    def counted(self) -> dict[str, Any]:
        """See Engine."""
        return total(super().counted(), {"breaker_openings": self.breaker.openings} | self._waits())

    @property
    def peer(self) -> tuple[str, int] | None:
        """Host and port of the server; None for a socket or a file, and for a group, any of which may answer."""
        _, host, port = self.spoken
        return (host, port) if host else None

    @property
    def servers_down(self) -> int:
        """See Engine."""
        return int(self.breaker.is_open)

    def _waits(self) -> dict[str, float]:
        """Return the waits for a connection, as counts by name."""
        return {}

    def setbacks(self, storage_key: str) -> int:
        """Return how often the server of a key was out of reach, or had no room."""
        return self.breaker.failures + self.refusals

    def is_down_for(self, storage_key: str) -> bool:
        """Tell whether the server of a key is not asked now."""
        return self.breaker.is_open

    def note_removal(self) -> None:
        """Note that entries were removed after an outage: copies of the server may be behind."""

    def renew(self) -> None:
        """Let no operation that begins from now on use a connection that is open now."""

    def after_fork_in_child(self) -> None:
        """Forget the parent's connections, and the server's health by them."""
        super().after_fork_in_child()
        self.breaker.reset()
        self.dropped.after_fork_in_child()


class ServedCache(BaseCache, abstract=True):
    """BaseCache for storages that a server keeps: tells failures of the server from others."""

    _engine: NetworkEngine
    _outage_errors: tuple[type[BaseException], ...] = ()
    """Errors of the driver when the server cannot be reached or does not answer in time."""

    _dropped: Dropped
    """The writes to this cache's server that an outage has dropped: the engine's, as a rule."""

    # The driver's errors ---------------------------------------------------------------------

    def _is_broken(self, error: Exception) -> bool:
        """Tell whether a connection broke, by an outage's error: at once, so that it was not waited for in vain."""
        return bool(getattr(error, "is_broken", False))

    def _remedy(self, error: BaseException) -> str:
        """Return a remedy against an outage's error by which the server refuses this cache; "" for another error."""
        return str(getattr(error, "remedy", ""))

    def _driver_errors(self, _: BaseException | None) -> tuple[type[Exception], ...]:
        """Return the driver's own classes of an outage's error, or of an outage that was met a moment ago if None."""
        return ()

    def _may_repeat(self, error: Exception) -> bool:
        """Tell whether a hook that failed so has a better chance on a new connection, and see to it that it gets one.

        The others may be broken, too.
        """
        is_broken = isinstance(error, self._outage_errors) and self._is_broken(error)
        if is_broken:
            self._engine.renew()
        return is_broken

    # Recovery -------------------------------------------------------------------------------

    def _erase(self, storage_keys: Sequence[str]) -> None:
        """Remove entries, past the policy."""
        self._past("delete_many", storage_keys)
        self._engine.note_removal()

    def _past(self, name: str, *args: Any) -> Any:
        """Carry a hook out past the policy."""
        return getattr(type(self), f"_{name}").__wrapped__(self, *args)  # see network._guarded()

    async def _apast(self, name: str, *args: Any) -> Any:
        return await getattr(type(self), f"_a{name}").__wrapped__(self, *args)

    async def _aerase(self, storage_keys: Sequence[str]) -> None:
        await self._apast("delete_many", storage_keys)
        self._engine.note_removal()

    def _succeeded(self, failures: int) -> None:
        """Let the breaker know that the server answered an operation that began after so many failures."""
        engine, breaker = self._engine, self._engine.breaker
        if failures == breaker.failures or not breaker.is_open:  # one that is open waits for an answer of now
            engine.refused_with = ""
            breaker.succeed()

    def _is_outage(self, error: Exception, answers: int | None = None) -> bool:
        """Tell whether the server was out of reach, by the error of a hook, and let the breaker know.

        A server that has answered others meanwhile is slow, or this process is, and not down.

        Args:
            error: the error.
            answers: the server's when the hook began; None if that is not known.
        """
        engine = self._engine
        if isinstance(error, self._outage_errors):
            engine.breaker.fail(error, is_down=answers is None or answers == engine.answers)
            return True
        if isinstance(error, _ANSWERED):
            engine.answers += 1
            engine.breaker.succeed()
        return False
