"""Advice: the numbers to write into CACHES, from the keys that a program reads.

A sample of the keys is replayed on small copies of the cache, one for each size in question, with the policy that
decides in local memory itself (`storeroom.advice.simulation`). Their misses, beside those of the copy of the size in
use, tell the hit ratio at each size, with an interval (`storeroom.advice.estimate`); the answer names the numbers to
write (`storeroom.advice.rules`). Reasons and figures: docs/decisions/0130-advice.md.
"""

from storeroom.advice.answer import Advice, Change, Subject
from storeroom.advice.estimate import Point
from storeroom.advice.rules import advise
from storeroom.advice.simulation import Simulation, ladder, near_sizes
from storeroom.advice.traces import Trace, read_trace

__all__ = [
    "Advice",
    "Change",
    "Point",
    "Simulation",
    "Subject",
    "Trace",
    "advise",
    "ladder",
    "near_sizes",
    "read_trace",
]
