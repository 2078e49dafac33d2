"""What renewing a lease costs: about every two seconds, while a computation goes on that takes longer."""

from typing import Any, Final

__all__ = ["renew_lease"]

_SECONDS: Final = 3600.0
"""For which each renewal holds the lease: it has too little left of that by the next one, as the clock goes on."""

_leading: Final = dict[int, tuple[Any, Any]]()


def renew_lease(cache: Any) -> None:
    """Renew the lease of a computation that goes on, as the thread for leases does."""
    from storeroom import timeouts
    from storeroom.storage.steps import run

    held, work = _leading.get(id(cache), (None, None))
    if held is not cache:
        work = cache._computation("lease", "lease", None, 300, (), cache._freshness)
        assert run(work.take_leases(timeouts.now() + 1)) == ["lease"]
        _leading[id(cache)] = cache, work
    before = work.lease.held
    run(work.renew_leases(timeouts.now() + _SECONDS, 2 * _SECONDS))
    assert work.lease.held is not before, "it was not renewed"
