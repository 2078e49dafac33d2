"""From OPTIONS to a codec: every choice is checked, and its library loaded, before the first value."""

import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Final, TypeAlias

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError, StoreroomError
from storeroom.serializers import compressors, frames, plugins
from storeroom.serializers.codec import Codec, SignedCodec
from storeroom.serializers.frames import PICKLE_PROTOCOL, SCALAR_READERS, Reader, Writer, type_name
from storeroom.serializers.plugins import Serializer
from storeroom.serializers.signatures import Signer
from storeroom.storage.envelope import FIRST_BYTE, unpack

__all__ = ["DEFAULT_COMPRESS_MIN_BYTES", "DEFAULT_MAX_VALUE_BYTES", "build_codec"]

DEFAULT_COMPRESS_MIN_BYTES: Final = 1024
"""Shorter frames gain less than the work costs."""

DEFAULT_MAX_VALUE_BYTES: Final = 512 * 2**20
"""The longest string that a Redis server keeps."""

_NAMES: Final = ("pickle", "json", "msgpack")

_MAX_DEPTH_SHOWN: Final = 20
"""Levels of containers; one that contains itself would else be followed for ever."""

_Maker: TypeAlias = Callable[[], Serializer]


def build_codec(
    serializer: Any = "pickle",
    *,
    secret: Any = None,
    compressor: Any = None,
    compress_min_bytes: int = DEFAULT_COMPRESS_MIN_BYTES,
    trusted: bool = False,
    allowed_types: Iterable[str | type] = (),
    max_value_bytes: int = DEFAULT_MAX_VALUE_BYTES,
) -> Codec:
    """Return the codec that these options describe.

    Args:
        serializer: "pickle", "json", "msgpack", or an object, class or dotted path with ``dumps(value) -> bytes`` and
            ``loads(bytes)``; a foreign one is itself responsible for the bytes that it reads.
        secret: str or bytes that sign every value, at least 16 bytes; or a list of them, of which the first signs and
            all verify.
        compressor: "zlib", "lzma", "zstd", "lz4", None, or an object, class or dotted path with ``compress(bytes)``
            and ``decompress(bytes)``.
        compress_min_bytes: shorter frames are left as they are.
        trusted: nobody else can write to the store, so pickles are read as they are. A secret, where there is one,
            signs all the same.
        allowed_types: classes, or their dotted paths, that a store neither trusted nor signed may hold beside plain
            data.
        max_value_bytes: the longest value that is compressed, or read from compressed bytes.

    Raises:
        ConfigurationError: an option is wrong, or a library it needs is not installed.
    """
    _require_whole_number("compress_min_bytes", compress_min_bytes, 0)
    _require_whole_number("max_value_bytes", max_value_bytes, 1)
    signer = None if secret is None else Signer(_secrets(secret))
    makers = _makers(_paths(allowed_types), any_pickle=trusted or signer is not None)
    prefix, chosen = _chosen(serializer, makers)
    loaders = {own: _lazily(maker) for own, maker in makers.items()} | {prefix: chosen.loads}
    compressed = compressors.get_format(compressor)
    codec = (
        _writer(prefix, chosen.dumps),
        _readers(loaders, compressed, max_value_bytes),
        None if compressed is None else _bounded(compressed.compress, max_value_bytes),
        compress_min_bytes,
    )
    return Codec(*codec) if signer is None else SignedCodec(signer, *codec)


class _AnyPickle:
    """Pickle without fences: for bytes that only a trusted writer can have made."""

    dumps = staticmethod(partial(pickle.dumps, protocol=PICKLE_PROTOCOL))
    loads = staticmethod(pickle.loads)


def _makers(allowed_paths: frozenset[str], *, any_pickle: bool) -> dict[bytes, _Maker]:
    """Return the makers of Storeroom's own serializers, by prefix; each makes one, when first called."""
    return {
        **({frames.PICKLE: _AnyPickle} if any_pickle else {}),
        frames.SAFE_PICKLE: cache(partial(_safe_pickle, allowed_paths)),
        frames.JSON: cache(partial(_document_serializer, "json_serializer")),
        frames.MSGPACK: cache(partial(_document_serializer, "msgpack_serializer")),
    }


def _safe_pickle(allowed_paths: frozenset[str]) -> Serializer:
    from storeroom.serializers.pickles import SafePickle  # noqa: PLC0415 -- 10 ms of standard library

    return SafePickle(allowed_paths)


def _document_serializer(name: str) -> Serializer:
    from storeroom.serializers import documents  # noqa: PLC0415 -- json is not always needed

    made: Serializer = getattr(documents, name)()
    return made


def _chosen(option: Any, makers: Mapping[bytes, _Maker]) -> tuple[bytes, Serializer]:
    """Return the prefix and the serializer with which values are written."""
    any_pickle = frames.PICKLE in makers
    prefixes = (frames.PICKLE if any_pickle else frames.SAFE_PICKLE, frames.JSON, frames.MSGPACK)
    by_name = dict(zip(_NAMES, prefixes, strict=True))
    if not isinstance(option, str) or option not in by_name:
        custom: Serializer = plugins.load("serializer", option, _NAMES, ("dumps", "loads"))
        return frames.CUSTOM_SERIALIZER + plugins.fingerprint(custom), custom
    try:
        return by_name[option], makers[by_name[option]]()
    except ImportError as error:
        raise ConfigurationError(
            f"serializer is {option!r}, whose module cannot be imported ({error}). "
            f"Install it with: python3 -m pip install 'storeroom[{option}]'."
        ) from error


def _writer(prefix: bytes, dumps: Callable[[Any], bytes]) -> Writer:
    def write(value: object) -> bytes:
        try:
            return prefix + dumps(value)
        except (StoreroomError, MemoryError):
            raise
        except Exception as error:
            # A value's own __reduce__ or __getstate__ can fail in any way.
            path, kind = _culprit(value, dumps)
            raise SerializationError(
                f"{path} is of type {type_name(kind)!r} and cannot be stored ({type(error).__name__}). "
                "Store plain data made from it: what lives in this process only (open files, locks, generators, "
                "lambdas, classes made within a function) cannot be cached."
            ) from error

    return write


def _culprit(value: Any, dumps: Callable[[Any], bytes]) -> tuple[str, type]:
    """Find the innermost member that cannot be stored: its path in the value, and its type."""
    path = "The value"
    for _ in range(_MAX_DEPTH_SHOWN):
        for key, member in _members(value):
            try:
                dumps(member)
            except Exception:  # noqa: BLE001 -- that it fails is the finding
                shown = f"{key!r:.40}" if type(key) in (str, int) else f"a {type(key).__name__}"
                value, path = member, f"{path}[{shown}]"
                break
        else:
            break
    return path, type(value)


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if type(value) is dict:
        return iter(value.items())
    return iter(enumerate(value)) if type(value) in (list, tuple, set, frozenset) else iter(())


def _lazily(maker: _Maker) -> Callable[[bytes], Any]:
    return lambda payload: maker().loads(payload)


def _readers(
    loaders: Mapping[bytes, Callable[[bytes], Any]], chosen: compressors.Format | None, max_bytes: int
) -> dict[int, Reader]:
    """Return the readers of all frames; compressed ones can't be nested, nor can values that have conditions."""
    plain = {
        **SCALAR_READERS,
        frames.SIGNED[0]: _refusal("They are signed, and no secret is set."),
        frames.PICKLE[0]: _refusal("They may run code: the store is neither trusted nor signed."),
        **{prefix[0]: _reader(prefix, loads) for prefix, loads in loaders.items()},
    }

    def expand(compressed: compressors.Format, frame: bytes) -> object:
        inner = compressed.expand(frame, max_bytes)
        return plain[inner[0]](inner)

    formats = [*compressors.FORMATS.values(), *([] if chosen is None else [chosen])]
    readers = plain | {compressed.prefix[0]: partial(expand, compressed) for compressed in formats}
    return readers | {FIRST_BYTE[0]: lambda frame: unpack(frame, lambda inner: readers[inner[0]](inner))}


def _reader(prefix: bytes, loads: Callable[[bytes], Any]) -> Reader:
    def read(frame: bytes) -> object:
        if not frame.startswith(prefix):
            raise DecodeError("Stored bytes cannot be read: another serializer wrote them.")
        return loads(frame[len(prefix) :])

    # The first byte alone has been compared already, to find the reader.
    return read if len(prefix) > 1 else lambda frame: loads(frame[1:])


def _refusal(reason: str) -> Reader:
    def read(_: bytes) -> object:
        raise DecodeError(f"Stored bytes cannot be read. {reason}")

    return read


def _bounded(compress: Callable[[bytes], bytes], max_bytes: int) -> Callable[[bytes], bytes]:
    return lambda frame: compress(frame) if len(frame) <= max_bytes else frame


def _require_whole_number(option: str, value: Any, minimum: int) -> None:
    if type(value) is not int or value < minimum:
        raise ConfigurationError(f"{option} is {value!r}; expected a number of bytes, at least {minimum}.")


def _secrets(secret: Any) -> list[bytes]:
    """Return the secrets as bytes; no error shows any of them."""
    given = secret if isinstance(secret, (list, tuple)) else [secret]
    secrets = [one.encode() if isinstance(one, str) else one for one in given]
    for one in secrets:
        if not isinstance(one, bytes):
            raise ConfigurationError(
                f"secret is of type {type_name(type(one))!r}; expected str, bytes or a list of them."
            )
    return secrets


def _paths(allowed_types: Any) -> frozenset[str]:
    if isinstance(allowed_types, (str, type)) or not isinstance(allowed_types, Iterable):
        raise ConfigurationError("allowed_types is a single value; expected a list of classes or their dotted paths.")
    paths = []
    for given in allowed_types:
        path = f"{given.__module__}.{given.__qualname__}" if isinstance(given, type) else given
        if not isinstance(path, str) or "." not in path or not path.replace(".", "").isidentifier():
            raise ConfigurationError(
                f"allowed_types contains {given!r}; expected a class at the top level of a module, "
                "or its dotted path, such as 'app.models.Basket'."
            )
        paths.append(path)
    return frozenset(paths)
