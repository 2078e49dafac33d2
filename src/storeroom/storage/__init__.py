"""A storage as the framework sees it: the hooks that a backend fills in, and the mechanisms built on them.

`hooks` lists the operations that a backend defines or inherits. A value with conditions (tags, staleness, a lease) is
stored in an `envelope`, judged by `conditions` and `tags`. Work that needs several hooks is written once, as `steps`,
for both kinds of callers. An `overlay` stands between a cache and its storage: a near tier, a memo, a transaction.
"""
