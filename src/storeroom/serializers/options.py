"""From OPTIONS to a codec: every choice is checked, and its library loaded, before the first value."""

import _pickle as pickle  # the C module alone
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Any, Final, TypeAlias

from storeroom.exceptions import ConfigurationError, DecodeError, SerializationError, StoreroomError
from storeroom.serializers import compressors, frames, plugins
from storeroom.serializers.bounds import DEFAULT_MAX_EXPANSION, Limits
from storeroom.serializers.codec import Codec, SignedCodec
from storeroom.serializers.compressors import FORMATS, Format
from storeroom.serializers.expansion import Expansion
from storeroom.serializers.frames import PICKLE_PROTOCOL, SCALAR_READERS, Reader, Writer, type_name
from storeroom.serializers.parts import PART_READERS, Part, PartReader, pickle_in_parts, read_buffers, read_joined
from storeroom.serializers.plugins import Serializer
from storeroom.serializers.signatures import Signer
from storeroom.storage.copies import TRIAL
from storeroom.storage.envelope import FIRST_BYTE, unpack
from storeroom.storage.interruptions import raise_if_foreign, value_or
from storeroom.storage.trials import names_in, note_unreadable
from storeroom.wording import installation, shown

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
    max_expansion: int = DEFAULT_MAX_EXPANSION,
    read_compressors: Iterable[str] = (),
    signing_context: str = "",
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
        max_expansion: times its stored length that a value may take in memory, if the store is neither trusted nor
            signed. Up to 16 MiB it may take in any case, and expand to 3 MiB.
        read_compressors: names of formats that such a store reads beside that of `compressor`, while it is changed.
        signing_context: the signatures hold for this name only.

    Raises:
        ConfigurationError: an option is wrong, or a library it needs is not installed.
    """
    _require_whole_number("compress_min_bytes", compress_min_bytes, 0)
    _require_whole_number("max_value_bytes", max_value_bytes, 1)
    _require_whole_number("max_expansion", max_expansion, 1)
    signer = None if secret is None else Signer(_secrets(secret), signing_context)
    limits = None if trusted or signer is not None else Limits(max_expansion)
    makers = _makers(_paths(allowed_types), limits)
    prefix, chosen = _chosen(serializer, makers)
    compressed = compressors.get_format(compressor)
    formats = _read_formats(compressed, read_compressors, everything=limits is None)
    expansion = Expansion(makers, limits, max_value_bytes)
    loaders = {own: _lazily(maker) for own, maker in makers.items()} | {prefix: chosen.loads}
    codec = (
        _writer(prefix, chosen.dumps),
        _readers(loaders, formats, expansion),
        None if compressed is None else partial(expansion.compress, compressed),
        compress_min_bytes,
        _part_readers(loaders),
        _write_parts if isinstance(chosen, _AnyPickle) else None,
    )
    return Codec(*codec) if signer is None else SignedCodec(signer, *codec)


def _read_formats(chosen: Format | None, names: Any, *, everything: bool) -> list[Format]:
    """Return the compressed formats that are read."""
    if isinstance(names, str) or not isinstance(names, Iterable) or not (named := set(names)) <= FORMATS.keys():
        raise ConfigurationError(
            f"read_compressors is {shown(names)}; expected a list with some of {', '.join(map(repr, FORMATS))}."
        )
    others: list[Format] = [known for name, known in FORMATS.items() if everything or name in named]
    return others if chosen is None else [*others, chosen]


class _AnyPickle:
    """Pickle without fences: for bytes that only a trusted writer can have made."""

    @staticmethod
    def dumps(value: Any) -> bytes:
        data = pickle.dumps(value, PICKLE_PROTOCOL)
        if names := names_in(data):
            TRIAL.check(data, names)
        return data

    @staticmethod
    def loads(data: bytes) -> Any:
        try:
            return pickle.loads(data)
        except Exception as error:
            raise_if_foreign(error, pickle.loads, data)
            note_unreadable(names_in(data), error)
            raise


def _makers(allowed_paths: frozenset[str], limits: Limits | None) -> dict[bytes, _Maker]:
    """Return the makers of Storeroom's own serializers, by prefix; each makes one, when first called.

    Args:
        allowed_paths: of classes that a store of plain data may hold.
        limits: None for a store whose bytes come of trusted writers, so that any pickle is read.
    """
    return {
        **({frames.PICKLE: _AnyPickle} if limits is None else {}),
        frames.SAFE_PICKLE: cache(partial(_safe_pickle, allowed_paths, limits or Limits())),
        frames.JSON: cache(partial(_document_serializer, "json_serializer", limits)),
        frames.MSGPACK: cache(partial(_document_serializer, "msgpack_serializer", limits)),
    }


def _safe_pickle(allowed_paths: frozenset[str], limits: Limits) -> Serializer:
    from storeroom.serializers.pickles import SafePickle  # noqa: PLC0415 -- 10 ms of standard library

    return SafePickle(allowed_paths, limits)


def _document_serializer(name: str, limits: Limits | None) -> Serializer:
    from storeroom.serializers import documents  # noqa: PLC0415 -- json is not always needed

    made: Serializer = getattr(documents, name)(limits)
    return made


def _chosen(option: Any, makers: Mapping[bytes, _Maker]) -> tuple[bytes, Serializer]:
    """Return the prefix and the serializer with which values are written."""
    prefixes = (frames.PICKLE if frames.PICKLE in makers else frames.SAFE_PICKLE, frames.JSON, frames.MSGPACK)
    by_name = dict(zip(_NAMES, prefixes, strict=True))
    if not isinstance(option, str) or option not in by_name:
        custom: Serializer = plugins.load("serializer", option, _NAMES, ("dumps", "loads"))
        return frames.CUSTOM_SERIALIZER + plugins.fingerprint(custom), custom
    try:
        return by_name[option], makers[by_name[option]]()
    except ImportError as error:
        raise ConfigurationError(
            f"serializer is {option!r}, whose module cannot be imported ({error}). {installation(option)}"
        ) from error


def _writer(prefix: bytes, dumps: Callable[[Any], bytes]) -> Writer:
    def write(value: object) -> bytes:
        try:
            return prefix + dumps(value)
        except (StoreroomError, MemoryError):
            raise
        except Exception as error:
            # A value's own __reduce__ or __getstate__ can fail in any way.
            raise_if_foreign(error, lambda: prefix + dumps(value))
            raise _unstorable(value, dumps, error) from error

    return write


def _write_parts(value: object) -> list[Part]:
    try:
        return pickle_in_parts(value, TRIAL)
    except (StoreroomError, MemoryError):
        raise
    except Exception as error:  # as above
        raise_if_foreign(error, pickle_in_parts, value, TRIAL)
        raise _unstorable(value, _AnyPickle.dumps, error) from error


def _unstorable(value: object, dumps: Callable[[Any], bytes], error: Exception) -> SerializationError:
    path, kind = _culprit(value, dumps)
    return SerializationError(
        f"{path} is of type {type_name(kind)!r} and cannot be stored ({type(error).__name__}). "
        "Store plain data made from it: what lives in this process only (open files, locks, generators, "
        "lambdas, classes made within a function) cannot be cached."
    )


def _part_readers(loaders: Mapping[bytes, Callable[[bytes], Any]]) -> Mapping[int, PartReader]:
    if frames.PICKLE not in loaders:
        return PART_READERS
    loads = loaders[frames.PICKLE]
    return {**PART_READERS, frames.PICKLE[0]: lambda _, parts: loads(*parts), frames.BUFFERS[0]: read_buffers}


def _culprit(value: Any, dumps: Callable[[Any], bytes]) -> tuple[str, type]:
    """Find the innermost member that cannot be stored: its path in the value, and its type."""
    path = "The value"
    for _ in range(_MAX_DEPTH_SHOWN):
        for key, member in _members(value):
            if value_or(None, dumps, member) is None:
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
    loaders: Mapping[bytes, Callable[[bytes], Any]], formats: Iterable[Format], expansion: Expansion
) -> dict[int, Reader]:
    """Return the readers of all frames; compressed ones can't be nested, nor can values that have conditions."""
    unsafe = _refusal("They may run code: the store is neither trusted nor signed.")
    unread = _refusal("They are compressed as OPTIONS do not say: see compressor and read_compressors.")
    plain = {
        **SCALAR_READERS,
        frames.SIGNED[0]: _refusal("They are signed, and no secret is set."),
        frames.PICKLE[0]: unsafe,
        frames.BUFFERS[0]: read_joined if frames.PICKLE in loaders else unsafe,
        **{prefix[0]: _reader(prefix, loads) for prefix, loads in loaders.items()},
    }
    readers = plain | {known.prefix[0]: unread for known in FORMATS.values()}
    readers |= {known.prefix[0]: partial(expansion.read, known, plain) for known in formats}

    def loads(inner: bytes) -> object:
        # As in Codec.loads(): most values that have tags are texts, or pickles.
        return inner[1:].decode() if inner[0] == frames.TEXT_BYTE else readers[inner[0]](inner)

    return readers | {FIRST_BYTE[0]: partial(unpack, loads=loads)}


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
