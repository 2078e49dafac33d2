"""The connections of a process: the queue of those who wait, and what is left by those who give up."""

import math
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from storeroom.backends import connections as module
from storeroom.backends.connections import CROWDED_SECONDS, TURN_SECONDS, Connections
from storeroom.backends.db.postgresql import bounded
from storeroom.backends.memcached.engine import Server
from storeroom.backends.memcached.pymemcache_client import PieceSocket
from storeroom.exceptions import PoolTimeoutError
from storeroom.testing.concurrency import PATIENCE, eventually, in_background, in_threads


class Connection:
    """Stands for a driver's, which closes when nobody refers to it."""


def make(limit: int, patience: float = 20.0, **options: Any) -> Connections[Any]:
    return Connections("the server", Connection, lambda _: None, limit, patience, **options)


def test_waiters_are_served_in_turn() -> None:
    """Connections go to those who wait in the order in which they came."""
    connections, served = make(1), list[int]()
    held, _ = connections.take()

    def wait(number: int) -> None:
        connection, is_open = connections.take()
        served.append(number)
        assert is_open
        connections.give_back(connection)

    waiters = []
    for number in range(8):
        waiters.append(in_background(wait, number))
        eventually(lambda: len(connections._queue) == len(waiters))
    connections.give_back(held)
    for waiter in waiters:
        waiter.result()
    assert served == list(range(8))


def test_server_of_memcached_takes_connections_and_gives_them_back_as_others_do() -> None:
    """Its ask() does without the calls: who waits is served, what closes is replaced, and none is lost or added."""
    made, broken = list[Any](), set[Any]()

    class FakeClient:
        def __init__(self) -> None:
            made.append(self)

        def get(self, seconds: float) -> Any:
            if self in broken:
                raise ConnectionError
            time.sleep(seconds)
            return self

        def close(self) -> None:
            broken.discard(self)

    server: Any = Server("the server", FakeClient, 2, 20.0)
    connections = server._connections
    answers = in_threads(8, lambda _: [server.ask("get", 0.001) for _ in range(20)])
    assert {client for told in answers for client in told} <= set(made)
    assert connections.idle == len(made) <= 2
    assert connections.waits["connection_waits"] > 0
    broken.update(made)
    assert server.ask("get", 0) is made[-1]  # on a new one, as the others are broken, too
    assert (connections.idle, len(connections._slots), len(connections._alive)) == (1, 2, 2)
    held, _ = connections.take()
    server.close()
    connections.give_back(held)
    assert connections.idle == 0
    assert server.ask("get", 0) is not held
    assert (connections.idle, len(connections._slots)) == (1, 2)


def test_ask_of_memcached_wakes_one_who_waits() -> None:
    """A connection that comes back from ask() goes to the first in the queue, without a look of its own."""
    begun, go = threading.Event(), threading.Event()

    class FakeClient:
        def get(self) -> Any:
            begun.set()
            go.wait(PATIENCE)
            return self

    server: Any = Server("the server", FakeClient, 1, 20.0)
    asking = in_background(server.ask, "get")
    begun.wait(PATIENCE)
    waiter = in_background(server._connections.take)
    eventually(lambda: len(server._connections._queue) == 1)
    go.set()
    assert waiter.result(PATIENCE) == (asking.result(PATIENCE), True)


def test_running_thread_does_not_overtake_for_long() -> None:
    """A thread that takes a connection over and over again leaves it to one who waits."""
    connections = make(1)
    is_over = threading.Event()

    def use_it() -> None:
        while not is_over.is_set():
            connections.give_back(connections.take()[0])

    users = [in_background(use_it) for _ in range(3)]
    for _ in range(3):
        connection, _ = connections.take()
        time.sleep(0.001)
        connections.give_back(connection)
    is_over.set()
    for user in users:
        user.result()


def test_connection_is_kept_for_the_first_a_moment_after_it_was_woken_in_vain() -> None:
    """Nobody overtakes the first in the queue once its time has come, which is TURN_SECONDS after its look in vain."""
    connections = make(1)
    held, _ = connections.take()
    waiter = in_background(connections.take)
    eventually(lambda: len(connections._queue) == 1)
    ticket = connections._queue[0]
    while True:
        due, now = ticket.due, time.monotonic()
        assert due == math.inf or due - now < 1.001 * TURN_SECONDS
        connections.give_back(held)
        try:
            connections._slots.pop()  # as take() does
        except IndexError:
            break
        assert now < due
    assert waiter.result(PATIENCE) == (held, True)


def test_connection_that_nobody_takes_is_not_left_lying() -> None:
    """One that came back in the moment of running threads is the first's in the queue, though nobody wakes it."""
    connections = make(1)
    held, _ = connections.take()
    waiter = in_background(connections.take)
    eventually(lambda: len(connections._queue) == 1)
    ticket = connections._queue[0]
    while ticket.due == math.inf and ticket in connections._queue:  # until it is woken in vain
        connections.give_back(held)
        with suppress(IndexError):  # it was faster
            connections._slots.pop()
    connections._put(held)
    assert waiter.result(PATIENCE) == (held, True)


def test_wait_in_vain_takes_nothing_along() -> None:
    """After pool_timeout it is over: the error says so, and the connection is the next one's."""
    connections = make(1, patience=0.01)
    held, _ = connections.take()
    with pytest.raises(PoolTimeoutError, match=r"the server: all 1 connections .*'pool_timeout'"):
        connections.take()
    connections.give_back(held)
    assert connections.take() == (held, True)


class Interrupted(BaseException):
    """Stands for KeyboardInterrupt."""


def test_waiter_that_a_signal_interrupts_leaves_the_queue() -> None:
    """The handler of a signal may raise while the main thread waits: others are served as if it had not come."""
    connections = make(1)
    held, _ = connections.take()

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            connections.take()
    finally:
        signal.signal(signal.SIGALRM, before)
    waiter = in_background(connections.take)
    eventually(lambda: len(connections._queue) == 1)
    connections.give_back(held)
    assert waiter.result() == (held, True)


def test_waiter_that_is_interrupted_with_a_connection_in_hand_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that was kept for one who is interrupted meanwhile is the next one's."""
    connections = make(1)
    held, _ = connections.take()

    class Lock:
        """A lock that is interrupted after it was had."""

        def acquire(self, *, blocking: bool = True, timeout: float = -1) -> None:
            if timeout > 0:
                connections.give_back(held)
                raise Interrupted

        def release(self) -> None:
            pass

    with monkeypatch.context() as patch:
        patch.setattr(module.threading, "Lock", Lock)
        with pytest.raises(Interrupted):
            connections._wait(is_first=True)
    assert connections.take() == (held, True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Python drops what comes there
def test_slot_whose_end_is_interrupted_is_made_up_for() -> None:
    """An exception that comes while Python frees a lost slot does not keep it counted: another takes its place."""
    connections = make(2)

    def interrupt(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name != "interrupted":
            raise Interrupted

    for _ in range(6):
        held = [connections.take()[0]]

        def interrupted(held: list[Connection] = held) -> None:
            held.pop()

        sys.setprofile(interrupt)
        try:
            interrupted()
        except Interrupted:
            pass
        finally:
            sys.setprofile(None)
        held.clear()
    taken = [in_background(connections.take).result(PATIENCE) for _ in range(2)]
    assert len(taken) == 2


class Crowd:
    """A server that admits so many connections."""

    def __init__(self, admitted: int) -> None:
        self.admitted, self.open, self.most = admitted, 0, 0

    def connect(self) -> object:
        if self.open >= self.admitted:
            raise ConnectionError("too many")
        self.open += 1
        self.most = max(self.most, self.open)
        return Connection()

    def connections(self, limit: int, patience: float) -> Connections[object]:
        return Connections("the server", self.connect, self.leave, limit, patience, lambda error: "many" in str(error))

    def leave(self, _: object) -> None:
        self.open -= 1


def test_server_that_admits_fewer_is_shared_by_those_it_admits() -> None:
    """Connections that the server refuses as too many are waited for; more are opened when it admits more."""
    crowd = Crowd(2)
    connections = crowd.connections(8, 20.0)

    def use(_: int) -> None:
        for _ in range(10):
            connection, _is_open = connections.take()
            time.sleep(0.001)
            connections.give_back(connection)

    in_threads(8, use)
    assert crowd.most == 2
    crowd.admitted = 8
    time.sleep(CROWDED_SECONDS)
    in_threads(8, use)
    assert crowd.most > 2


def test_server_that_admits_nobody_is_busy_not_down() -> None:
    """A refusal that lasts for pool_timeout is a PoolTimeoutError, too, which says what the server said."""
    crowd = Crowd(0)
    connections = crowd.connections(2, 0.02)
    with pytest.raises(PoolTimeoutError, match=r"refused another connection for 0\.02 s \(too many\)"):
        connections.take()
    crowd.admitted = 1
    time.sleep(CROWDED_SECONDS)
    assert connections.take()[1] is False


def test_silence_is_counted_in_looks() -> None:
    """A thread that was kept from looking at its socket has not waited for the server meanwhile."""

    def answer() -> Any:
        while not (yield "ready to read"):
            pass
        return "answer"

    given_up: list[bool] = []
    looks = bounded(answer(), 0.25, lambda: given_up.append(True))
    next(looks)
    time.sleep(0.3)
    assert looks.send(0) == looks.send(0) == "ready to read"
    with pytest.raises(psycopg.OperationalError, match=r"no answer within 0\.25 s"):
        looks.send(0)
    assert given_up == [True]


def test_long_message_takes_as_long_as_it_takes() -> None:
    """The timeout of a socket is for each piece: a thread or a line that is slow sends a long message, too."""
    here, there = socket.socketpair()
    sender = PieceSocket(fileno=here.detach())
    sender.settimeout(0.3)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**16)
    message = b"m" * 1_000_000

    def receive() -> int:
        received = 0
        while received < len(message):
            time.sleep(0.02)
            received += len(there.recv(2**15))
        return received

    receiving = in_background(receive)
    with sender, there:
        sender.sendall(message)
        assert receiving.result() == len(message)
