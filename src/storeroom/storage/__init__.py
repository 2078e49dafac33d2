"""A storage as the framework sees it: the hooks that a backend fills in, and the mechanisms built on them.

`hooks` lists the operations that a backend defines or inherits. A value with conditions (tags, staleness, a lease) is
stored in an `envelope`, judged by `conditions` and `tags`. Work that needs several hooks is written once, as `steps`,
for both kinds of callers. An `overlay` stands between a cache and its storage: a near tier, a memo, a transaction.
"""

from typing import TYPE_CHECKING

from storeroom.late import names_of

if TYPE_CHECKING:
    from storeroom.storage import batches, clocks, conditions, counters, interruptions, tags, trials, unstored

__all__ = ["batches", "clocks", "conditions", "counters", "interruptions", "tags", "trials", "unstored"]


if not TYPE_CHECKING:
    __getattr__, __dir__ = names_of(__name__, {name: name for name in __all__})
