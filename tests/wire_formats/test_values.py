"""Stored values stay readable: a new version never turns a full cache, or a file on disk, into misses."""

import collections
import datetime as dt
import decimal
import fractions
import ipaddress
import pathlib
import tomllib
import uuid
import zoneinfo

import pytest

from storeroom.serializers import build_codec, frames, safe_types
from storeroom.serializers.compressors import FORMATS
from storeroom.storage import envelope as entry
from tests.wire_formats import classes

KEY = "shop:1:basket"


def table(note, **items):
    made = classes.Table(items)
    made.note = note
    return made


IMPORTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (classes, collections, decimal, fractions, ipaddress, pathlib, uuid, zoneinfo)
} | {"dt": dt, "table": table, "Envelope": entry.Envelope}

SAMPLES = tomllib.loads(pathlib.Path(__file__).with_name("values.toml").read_text("utf-8"))["sample"]


def skip_without_its_library(stored):
    if stored[:1] == frames.MSGPACK:
        pytest.importorskip("msgpack")
    for compressed in FORMATS.values():
        if compressed.prefix == stored[:1]:
            try:
                compressed.library()
            except ImportError:
                pytest.skip(f"storeroom[{compressed.extra}] is not installed")


@pytest.mark.parametrize("sample", SAMPLES, ids=[sample["name"] for sample in SAMPLES])
def test_a_stored_value_is_still_read(sample):
    """Each sample in values.toml is read as its value and, if exact, written as the same bytes."""
    stored, value = bytes.fromhex(sample["stored"]), eval(sample["value"], dict(IMPORTS))
    skip_without_its_library(stored)
    codec = build_codec(**({"read_compressors": list(FORMATS)} | sample.get("options", {})))
    returned = codec.loads(stored, KEY)
    assert type(returned) is type(value)
    assert repr(returned) == repr(value)
    assert getattr(returned, "__dict__", None) == getattr(value, "__dict__", None)
    if type(value) is entry.Envelope:
        assert all(getattr(returned, name) == getattr(value, name) for name in entry.Envelope.__slots__)
    if sample["exact"]:
        assert codec.dumps(value, KEY) == stored


def test_there_is_a_sample_of_every_kind_of_frame():
    """values.toml has a sample of each first byte."""
    kinds = {value for name, value in vars(frames).items() if name.isupper() and type(value) is bytes}
    assert len(kinds) == 20
    assert {bytes.fromhex(sample["stored"])[:1] for sample in SAMPLES} >= kinds | {entry.FIRST_BYTE}


def test_there_is_a_signed_sample_of_an_envelope():
    """A signed envelope has its kind and its lease at fixed offsets, since a storage reads them there."""
    stored = [bytes.fromhex(sample["stored"]) for sample in SAMPLES]
    signed = [data for data in stored if data[:1] == frames.SIGNED and entry.is_packed(data)]
    assert signed
    assert any(entry.is_leased(data, 0.0) for data in signed)


def test_there_is_a_sample_of_every_constructor():
    """values.toml has a sample of each constructor of safe pickles."""
    stored = b"".join(bytes.fromhex(sample["stored"]) for sample in SAMPLES)
    assert [name for name in safe_types.CONSTRUCTORS if name.encode() not in stored] == []
