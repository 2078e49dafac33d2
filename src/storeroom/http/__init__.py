"""The rules of an HTTP cache, without I/O and without a framework: RFC 9111, as a shared cache.

`key` names a request's answers, `judge` tells whether a stored one answers it, `storable` whether a new one may be
stored and for how long it is of use. With RFC 5861 (stale answers), 9110 §13 (conditions), 9211 (Cache-Status) and
9213 (targeted fields). Where a rule leaves a choice, this takes the one that shows nobody another's page.
"""

from storeroom.http.fields import Headers
from storeroom.http.invalidating import changed
from storeroom.http.judging import Kind, Verdict, cut, is_unmodified, judge
from storeroom.http.policy import ANALYTICS_COOKIES, TRACKING_PARAMETERS, Policy
from storeroom.http.records import (
    PASS,
    RECORD,
    VARIES,
    Record,
    Varies,
    generation_of,
    pack,
    pass_by,
    read_varies,
    unpack,
    varies,
)  # fmt: skip
from storeroom.http.requests import LOOKED_AT, REMOTE_USER, Request, bypass, counted_query, forwarded, key, variant
from storeroom.http.status import cache_status
from storeroom.http.storing import Lifetimes, Refusal, freshened, made, storable, unfit

__all__ = [
    "ANALYTICS_COOKIES", "LOOKED_AT", "PASS", "RECORD", "REMOTE_USER", "TRACKING_PARAMETERS", "VARIES",
    "Headers", "Kind", "Lifetimes", "Policy", "Record", "Refusal", "Request", "Varies", "Verdict", "bypass",
    "cache_status", "changed", "counted_query", "cut", "forwarded", "freshened", "generation_of", "is_unmodified",
    "judge", "key", "made", "pack", "pass_by", "read_varies", "storable", "unfit", "unpack", "variant", "varies",
]  # fmt: skip
