"""The errors and warnings of Storeroom.

The family, with the standard library's bases by which programs may catch them already::

    StoreroomError
    ├── ConfigurationError        (ValueError)    a setting is wrong; the message says which and what to write
    │   └── InvalidCacheBackendError              an alias or a BACKEND that does not exist
    ├── InvalidCacheKey           (ValueError)    raised by a subclass's own validate_key()
    ├── InvalidTimeoutError       (ValueError)    a timeout that is neither seconds, timedelta, words nor None
    ├── KeyNotFoundError          (ValueError)    incr() and incr_version() of a key that is not there
    ├── ValueTypeError            (TypeError)     incr() of something that is not a number
    ├── SerializationError        (PicklingError) a value that could not be read back; raised by set(), not by get()
    ├── DecodeError               (ValueError)    stored bytes that cannot be read; backends count it as a miss
    ├── ValueTooLargeError        (ValueError)    a value that the storage cannot hold
    ├── StorageError                              the engine failed: disk full, server gone
    │   ├── PoolTimeoutError      (TimeoutError)  all connections of this process were busy for pool_timeout
    │   ├── ReentrantUseError     (RuntimeError)  a finalizer's operation in the midst of another of its thread
    │   ├── UnreachableError      (ConnectionError) an outage; also of the driver's own class, see below
    │   │   └── UnansweredError   (ValueError)    incr() and incr_version() under on_error "miss" in an outage
    │   └── WriteTimeoutError     (TimeoutError)  another process was writing to a file cache for write_timeout
    ├── NotSupportedError         (NotImplementedError) the storage cannot do this at all
    ├── ComputationCycleError     (RuntimeError)  get_or_set() of a key inside its own computation
    ├── ComputationTimeoutError   (TimeoutError)  get_or_set() with a hard_timeout that is over
    ├── UnkeyableArgumentError    (TypeError)     an argument of a @cached function that makes no stable key
    ├── LockError                                 a lock that cannot be had or kept
    │   ├── LockTimeoutError      (TimeoutError)  it was not free within its blocking_timeout
    │   └── LockLostError                         it is not the caller's, or not any more
    ├── TraceError                (ValueError)    a trace of `storeroom advise` that cannot be read
    └── TransactionError          (RuntimeError)  a transaction that held-back writes cannot follow

    StoreroomWarning              (UserWarning)
    └── DeprecatedBackendWarning  (DeprecationWarning)  a BACKEND name that Django has removed

An UnreachableError is caught by the clauses of programs that were written for the driver, too:

    =================  ================================================================================
    storage            it is also
    =================  ================================================================================
    Redis              redis.exceptions.ConnectionError; redis.exceptions.TimeoutError where time was up
    Memcached          pymemcache.exceptions.MemcacheError, or pylibmc.Error
    PostgreSQL         psycopg.OperationalError
    MySQL, MariaDB     pymysql.OperationalError
    in Django's        django.db.OperationalError, beside the driver's
    DATABASES
    where time was up  TimeoutError
    =================  ================================================================================

Where Django's session engine ``cache`` would take the answer of add() for a session that is there already, and try
the next key, 10,000 times, the error is a RuntimeError, too: Django's own when it gives up.
"""

from _pickle import PicklingError  # the C module alone: ``pickle`` would double the import time

__all__ = [
    "ComputationCycleError", "ComputationTimeoutError", "ConfigurationError", "DecodeError",
    "DeprecatedBackendWarning", "InvalidCacheBackendError", "InvalidCacheKey", "InvalidTimeoutError",
    "KeyNotFoundError", "LockError", "LockLostError", "LockTimeoutError", "NotSupportedError", "PoolTimeoutError",
    "ReentrantUseError", "SerializationError", "StorageError", "StoreroomError", "StoreroomWarning", "TraceError",
    "TransactionError", "UnansweredError", "UnkeyableArgumentError", "UnreachableError", "ValueTooLargeError",
    "ValueTypeError", "WriteTimeoutError",
]  # fmt: skip


class StoreroomError(Exception):
    """Base of every error that Storeroom raises on purpose."""


class ConfigurationError(StoreroomError, ValueError):
    """A setting is wrong: the message names alias, key, value, expectation and remedy."""


class InvalidCacheBackendError(ConfigurationError):
    """An alias that is not configured, or a BACKEND that cannot be imported."""


class InvalidCacheKey(StoreroomError, ValueError):  # noqa: N818 -- Django's name
    """For subclasses whose ``validate_key()`` refuses a key; Storeroom itself accepts every key."""


class InvalidTimeoutError(StoreroomError, ValueError):
    """A timeout that is neither seconds, a timedelta, words such as "5m", nor None."""


class KeyNotFoundError(StoreroomError, ValueError):
    """The operation needs a live entry and there is none (a ValueError, as in Django)."""


class ValueTypeError(StoreroomError, TypeError):
    """The stored value has the wrong type for the operation."""


class SerializationError(StoreroomError, PicklingError):
    """The value cannot be stored in a way that it could be read back."""


class DecodeError(StoreroomError, ValueError):
    """Stored bytes are truncated, foreign, tampered with or forbidden: callers see a miss, which is counted."""


class ValueTooLargeError(StoreroomError, ValueError):
    """The value is larger than the storage, or its configured bound, can hold."""


class StorageError(StoreroomError):
    """The engine under the cache failed.

    Attributes:
        is_ignored: whether it is of a counter whose policy is "none", so that the caller gets None instead.
    """

    is_ignored = False


class PoolTimeoutError(StorageError, TimeoutError):
    """No connection came free within `pool_timeout`: the program is busy, and the server is not to blame."""


class ReentrantUseError(StorageError, RuntimeError):
    """A finalizer, or a signal's handler, came in the midst of an operation of its thread on the same storage."""


class UnreachableError(StorageError, ConnectionError):
    """The server is out of reach. Also of the classes of its driver's errors: see the family above."""


class UnansweredError(UnreachableError, ValueError):
    """The server is out of reach, and a miss is the policy: a ValueError, as that of an entry that is not there."""


class WriteTimeoutError(StorageError, TimeoutError):
    """Another process was writing for all of `write_timeout`: it may have been stopped within a write."""


class NotSupportedError(StoreroomError, NotImplementedError):
    """The storage cannot do this; the message says what to use instead."""


class ComputationCycleError(StoreroomError, RuntimeError):
    """A computation waits for itself: get_or_set() of a key from within that key's computation."""


class ComputationTimeoutError(StoreroomError, TimeoutError):
    """A computation takes longer than `hard_timeout` allows. It goes on, and its result is stored."""


class UnkeyableArgumentError(StoreroomError, TypeError):
    """No key can be made of an argument of a @cached function: the message names it, and what to do."""


class LockError(StoreroomError):
    """A lock cannot be had, or cannot be kept."""


class LockTimeoutError(LockError, TimeoutError):
    """The lock was not free within its `blocking_timeout`."""


class LockLostError(LockError):
    """The lock is not the caller's: it was never acquired, its timeout is over, or somebody removed it."""


class TraceError(StoreroomError, ValueError):
    """A trace of traffic that cannot be read."""


class TransactionError(StoreroomError, RuntimeError):
    """Writes that are held back cannot follow the database's transaction; the message says what to do instead."""


class StoreroomWarning(UserWarning):
    """Base of every warning that Storeroom gives."""


class DeprecatedBackendWarning(StoreroomWarning, DeprecationWarning):
    """A BACKEND name that still resolves but that Django has removed."""
