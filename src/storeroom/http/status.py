"""The Cache-Status field, by which a cache tells its answer's way (RFC 9211)."""

import re

__all__ = ["cache_status"]


def cache_status(
    name: str, *, ttl: float | None = None, reason: str = "", status: int = 0, stored: bool = False,
    collapsed: bool = False,
) -> bytes:  # fmt: skip
    """Return this cache's member of Cache-Status; a response has one for each cache that it has come through.

    Args:
        name: of the cache.
        ttl: seconds that the stored answer is fresh for, less than 0 if it is stale; None if none was used.
        reason: the request was forwarded, for this reason (§2.2), and the detail after a semicolon; empty for a hit.
        status: of the forwarded request's answer, if it is another one (§2.3).
        stored: whether the answer was stored (§2.5).
        collapsed: whether it was made for another request (§2.6).

    >>> cache_status("Storeroom", ttl=30.5), cache_status("Storeroom", reason="uri-miss", stored=True)
    (b'Storeroom; hit; ttl=30', b'Storeroom; fwd=uri-miss; stored')
    """
    forwarded, _, detail = reason.partition(";")
    parts = [name if re.fullmatch(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*", name) else f'"{name}"']
    parts.append(f"fwd={forwarded}" if forwarded else "hit")
    parts += [f"fwd-status={status}"] if status else []
    parts += [f"ttl={ttl // 1:.0f}"] if ttl is not None else []
    parts += ["stored"] * stored + ["collapsed"] * collapsed
    parts += [f'detail="{detail}"'] if detail else []
    return "; ".join(parts).encode("latin-1")
