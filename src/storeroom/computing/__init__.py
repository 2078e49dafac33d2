"""get_or_set(): decide, compute once, store.

`decision` judges an entry that was read, and `serving` acts on that. One caller computes for all: in a process by
flights (``stampede``), among processes by ``leases``. `one_key` and `many_keys` are the work itself.
"""
