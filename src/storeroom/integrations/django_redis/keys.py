"""Storage keys, told from the keys that callers write."""

__all__ = ["CacheKey", "reversed_key"]


class CacheKey(str):
    """A storage key: it is made of no other."""

    __slots__ = ()

    def original_key(self) -> str:
        """Return the key it was made of, if that has no colon."""
        return self.rsplit(":", 1)[1]


def reversed_key(key: str) -> str:
    """Return the key that Django's key function has made a storage key of."""
    return key.split(":", 2)[2]
