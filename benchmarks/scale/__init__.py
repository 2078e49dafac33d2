"""Caches of ten thousand to ten million entries: each operation, the longest pause, room, opening and clearing.

``make bench-scale``, or ``python -m benchmarks.scale --largest 100000`` for a shorter run. ``contenders`` names the
caches, ``measuring`` measures one of them in a process of its own, ``run`` starts these processes, and ``page`` writes
``docs/scale.md``.

Two parts of it are about one cache under the load of several processes (``loads``): ``processes`` on one machine, and
``cluster`` through Redis servers. ``loaded`` has their sections of the page, and ``carries`` concludes from all.
"""
