"""Signatures, which prove that bytes were written with the secret, and for their key.

A value carries a keyed BLAKE2b hash (RFC 7693, section 2.9) of its storage key and its frame, salted by a context, if
there is one. An earlier value that is put back under the same key is not noticed; docs/serialization-and-trust.md lists
the rest that is not signed.
"""

from _blake2 import blake2b  # the C module alone
from _operator import _compare_digest as compare_digest  # as in ``hmac``, which would load OpenSSL
from collections.abc import Iterable
from typing import Any, Final

from storeroom.exceptions import ConfigurationError
from storeroom.serializers.frames import SIGNED
from storeroom.wording import shown

__all__ = ["MIN_SECRET_LENGTH", "Signer"]

MIN_SECRET_LENGTH: Final = 16
"""Bytes; 128 bits if they are random, which is also the strength of the signature."""

_SIGNATURE_SIZE: Final = 16
_START: Final = len(SIGNED) + _SIGNATURE_SIZE

# Personalization keeps hashes for one purpose useless for any other (a "domain separator" in RFC 7693); up to 16 bytes.
_KEY_PURPOSE: Final = b"storeroom.secret"
_VALUE_PURPOSE: Final = b"storeroom.value"
_CONTEXT_PURPOSE: Final = b"storeroom.where"


class Signer:
    """Signs with the first secret, the newest, and accepts all: an old one can go when its values have expired.

    Args:
        context: the name of the storage, or "". A value that was signed in another one is not accepted.

    Raises:
        ConfigurationError: there is none, or one is too short; its text is not shown. Or the context is no text.
    """

    def __init__(self, secrets: Iterable[bytes], context: str = "") -> None:
        if not isinstance(context, str):
            raise ConfigurationError(f"signing_context is {shown(context)}; expected a string, or '' for none.")
        salt = _salt(context) if context else b""
        self._hashes = [_keyed_hash(secret, salt) for secret in secrets]
        if not self._hashes:
            raise ConfigurationError("secret is an empty list; expected at least one secret, or None for no signing.")

    def sign(self, frame: bytes, storage_key: str, *more: Any) -> bytes:
        """Return the frame, wrapped in a signed one; of a frame that goes on in `more` parts, the beginning."""
        return b"%b%b%b" % (SIGNED, _signature(self._hashes[0], frame, storage_key, *more), frame)

    def verify(self, signed: bytes, storage_key: str, *more: Any) -> bytes | None:
        """Return the frame within, or None if no secret has signed it, and `more` parts, for this key."""
        given, frame = signed[len(SIGNED) : _START], signed[_START:]
        for keyed_hash in self._hashes:
            if compare_digest(given, _signature(keyed_hash, frame, storage_key, *more)):
                return frame
        return None

    def secret_of(self, signed: bytes, storage_key: str) -> tuple[int | None, int]:
        """Return the number of the secret that has signed a frame for this key, None if none has; and their count."""
        given, frame = signed[len(SIGNED) : _START], signed[_START:]
        good = [compare_digest(given, _signature(keyed_hash, frame, storage_key)) for keyed_hash in self._hashes]
        return (good.index(True) if any(good) else None), len(good)


def _salt(context: str) -> bytes:
    """Return 16 bytes, the longest salt of BLAKE2b."""
    return blake2b(context.encode("utf-8", "surrogatepass"), digest_size=16, person=_CONTEXT_PURPOSE).digest()


def _keyed_hash(secret: bytes, salt: bytes) -> Any:
    if len(secret) < MIN_SECRET_LENGTH:
        raise ConfigurationError(
            f"secret has {len(secret)} bytes; expected at least {MIN_SECRET_LENGTH}, chosen at random. "
            'Make one with: python3 -c "import secrets; print(secrets.token_urlsafe())"'
        )
    # BLAKE2b takes keys up to 64 bytes; hashing makes one of a secret of any length.
    key = blake2b(secret, person=_KEY_PURPOSE).digest()
    return blake2b(key=key, digest_size=_SIGNATURE_SIZE, person=_VALUE_PURPOSE, salt=salt)


def _signature(keyed_hash: Any, frame: bytes, storage_key: str, *more: Any) -> bytes:
    # The key's length first: otherwise "ab" + "c" and "a" + "bc" would sign alike.
    key = storage_key.encode("utf-8", "surrogatepass")
    value_hash = keyed_hash.copy()  # half the cost of starting from the key each time
    value_hash.update(len(key).to_bytes(8, "big") + key)
    value_hash.update(frame)
    for part in more:
        value_hash.update(part)
    digest: bytes = value_hash.digest()
    return digest
