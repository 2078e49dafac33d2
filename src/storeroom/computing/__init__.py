"""get_or_set(): decide, compute once, store.

`decision` judges an entry that was read, and `serving` acts on that. One caller
computes for all: in a process by flights (``stampede``), among processes by ``leases``.
`one_key` and `many_keys` are the work itself: read, lease, compute, store.
"""

from storeroom.computing.decision import Decision, decide
from storeroom.computing.many_keys import obtain_many
from storeroom.computing.serving import obtain
from storeroom.computing.stampede import LEASE_SECONDS

__all__ = ["LEASE_SECONDS", "Decision", "decide", "obtain", "obtain_many"]
