"""What an idle connection's socket tells: whether the other end has closed it."""

import os
import select
import socket
from collections.abc import Iterable

__all__ = ["detach", "has_news"]


def has_news(descriptor: int) -> bool:
    """Tell whether there is anything to read, which on an idle connection is its end, or an error."""
    if descriptor < 0:
        return True
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([descriptor], [], [], 0)[0])


def detach(descriptors: Iterable[int]) -> None:
    """Let these descriptors lead nowhere, in a forked child.

    A driver that says good-bye when its object goes would say it to the parent's server process.
    """
    nowhere, other = socket.socketpair()
    other.close()
    for descriptor in descriptors:
        if descriptor >= 0:
            os.dup2(nowhere.fileno(), descriptor, inheritable=False)
    nowhere.close()
