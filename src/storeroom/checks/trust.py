"""The protection of a server's entries from reading, changing and forging by others."""

import math
import re
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Final

from storeroom.checks.finding import Finding, Rule
from storeroom.checks.subject import Subject
from storeroom.serializers.secrets import secret_of
from storeroom.storage.probes import Endpoint, Probe
from storeroom.wording import mask_url

__all__ = ["CHECKS", "check_ways"]

BLIND_PICKLE: Final = Rule(
    "storeroom.E006",
    "Pickles of a server are read as they are",
    "Whoever can write to the server can store a pickle that runs code in every program that reads it. "
    'Storeroom\'s own "pickle" refuses such pickles, or signs all it stores.',
)
UNSIGNED: Final = Rule(
    "storeroom.W017",
    "What a server on another host keeps is not signed",
    "Whoever can write to the server, or to the network between, can put values of their own in the place of this "
    "program's: another user's session, a permission, a price. No code is run, as nothing but plain data is read.",
)
WEAK_SECRET: Final = Rule(
    "storeroom.W018",
    "The secret can be guessed",
    "Whoever guesses it can sign values, and a signed value may be a pickle that runs code.",
)
UNSIGNED_PICKLES: Final = Rule(
    "storeroom.W019",
    "Unsigned pickles are read",
    "Whoever can write to the server can store a pickle that runs code in this program. That is what a move from "
    "another backend takes for a few days, and no longer.",
)
NOT_ENCRYPTED: Final = Rule(
    "storeroom.W020",
    "The way to another host is not encrypted",
    "What the cache holds, and the password too, can be read and changed by whoever is on the network between.",
)
NO_PASSWORD: Final = Rule(
    "storeroom.W021",
    "A server on another host asks for no password",
    "Everybody who can reach its port can read, change and remove all that it keeps.",
)

_RUN_CODE: Final = frozenset({"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "jsonpickle", "marshal", "shelve"})
"""Modules whose loads() runs the code in the bytes."""

_RANDOM_BITS: Final = 48
"""A secret of less, by its length and its number of different characters, is from no generator: 16 characters in Base64
have 60 or so, and are the shortest secret that is accepted."""

_PLACEHOLDER: Final = re.compile(
    r"insecure|change.?me|secret.?key|your.?secret|my.?secret|passw|example|qwerty|1234567"
)

_MAKE_ONE: Final = 'python3 -c "import secrets; print(secrets.token_urlsafe())"'


def _secrets(alias: Subject) -> list[Any]:
    """Return the secrets of the configuration, as written."""
    secret = None if alias.settings is None else alias.settings.options.get("secret")
    return list(secret) if isinstance(secret, list | tuple) else [secret] if secret else []


def _is_signed(alias: Subject) -> bool:
    settings = alias.settings
    return alias.context.has_secret_key or settings is None or bool(_secrets(alias) or secret_of(settings))


def _check_blind_pickle(alias: Subject) -> Iterator[Finding]:
    if alias.settings is None or alias.family not in {"redis", "memcached", "db"} or _is_signed(alias):
        return
    name = _module(alias.settings.options.get("serializer"))
    if name in _RUN_CODE:
        remedy = f"Use Storeroom's own, and for what is not plain data a secret, as made by {_MAKE_ONE}:"
        mended = {"OPTIONS": {"serializer": "pickle", "secret": "(the secret)"}}
        runs = f"the module {name}, whose loads() runs what it is told to"
        what = f"OPTIONS['serializer'] is {runs}, and there is no secret."
        yield BLIND_PICKLE.broken(alias.name, what, remedy, mended)


def _module(serializer: Any) -> str:
    """Return the top module that a serializer is, or lies in; "" for a name."""
    if isinstance(serializer, str):
        return serializer.partition(".")[0] if "." in serializer else ""
    if isinstance(serializer, ModuleType):
        return serializer.__name__.partition(".")[0]
    kind = serializer if isinstance(serializer, type) else type(serializer)
    return kind.__module__.partition(".")[0]


def _check_unsigned(alias: Subject) -> Iterator[Finding]:
    elsewhere = [endpoint for endpoint in alias.told("endpoints") or () if endpoint.is_elsewhere]
    if not elsewhere or _is_signed(alias):
        return
    what = f"OPTIONS has no secret, and values are kept at {_listed(elsewhere)}."
    remedy = f"Make a secret with: {_MAKE_ONE}. Give it to all programs that share the cache:"
    yield UNSIGNED.broken(alias.name, what, remedy, {"OPTIONS": {"secret": "(the secret)"}})


def _check_weak_secret(alias: Subject) -> Iterator[Finding]:
    """Find a secret that no generator made. It is not shown."""
    secrets = _secrets(alias)
    for number, secret in enumerate(secrets):
        weakness = _weakness(secret)
        if weakness:
            what = f"OPTIONS['secret']{f'[{number}]' if len(secrets) > 1 else ''} {weakness}."
            remedy = f"Make one with: {_MAKE_ONE}. What the old one has signed is then computed anew."
            yield WEAK_SECRET.broken(alias.name, what, remedy)


def _weakness(secret: Any) -> str:
    text = secret.decode("utf-8", "replace") if isinstance(secret, bytes) else str(secret)
    word = _PLACEHOLDER.search(text.lower())
    if word:
        return f"has {word[0]!r} in it, as placeholders have"
    kinds = len(set(text))
    if len(text) * math.log2(max(kinds, 1)) < _RANDOM_BITS:
        return f"has {len(text)} characters, of which only {kinds} are different"
    return ""


def _check_unsigned_pickles(alias: Subject) -> Iterator[Finding]:
    if alias.settings is not None and alias.settings.options.get("read_unsigned_pickles"):
        remedy = "Switch it off when what the other backend has stored is gone, after its longest timeout:"
        mended = {"OPTIONS": {"read_unsigned_pickles": False}}
        yield UNSIGNED_PICKLES.broken(alias.name, "OPTIONS['read_unsigned_pickles'] is on.", remedy, mended)


def check_ways(alias: Subject, probe: Probe | None) -> Iterator[Finding]:
    """Find servers on other hosts that others can read along with, or get into."""
    # As they answered, or else as they are written.
    told = () if probe is None else (server.endpoint for server in probe.servers if server.role != "Sentinel")
    by_address = {endpoint.address: endpoint for endpoint in (*(alias.told("endpoints") or ()), *told)}
    found = [endpoint for endpoint in by_address.values() if endpoint.is_elsewhere]
    open_ways = [endpoint for endpoint in found if endpoint.is_encrypted is False]
    if open_ways:
        what, remedy = f"What goes to {_listed(open_ways)} is not encrypted.", _TLS.get(alias.family, "Use TLS.")
        yield NOT_ENCRYPTED.broken(alias.name, what, remedy, _encrypted(alias))
    open_doors = [endpoint for endpoint in found if endpoint.has_password is False]
    if open_doors:
        what = f"No password is needed, or given, for {_listed(open_doors)}."
        yield NO_PASSWORD.broken(alias.name, what, _PASSWORD.get(alias.family, "Let it ask for one."))


_TLS: Final = {
    "redis": "Let the server speak TLS, and write rediss:// for redis://; silence the id if the network is your own:",
    "memcached": "Let the server speak TLS (memcached -Z), and give PyMemcacheCache an OPTIONS['tls_context']; silence "
    "the id if the network is your own.",
    "db": "Ask for TLS in the URL: ?sslmode=verify-full for PostgreSQL, ?ssl_ca=/path/of/ca.pem for MariaDB and MySQL; "
    "silence the id if the network is your own.",
}

_PASSWORD: Final = {
    "redis": "Set one (requirepass, or a user of an ACL), and write it into LOCATION or OPTIONS['password'].",
    "memcached": "Let only the program's hosts reach its port; or use SASL (memcached -S) with PyLibMCCache and its "
    "options binary, username and password; or TLS with certificates of clients. Then silence the id.",
    "db": "Let the server ask for one (pg_hba.conf: scram-sha-256), and write it into the URL.",
}


def _encrypted(alias: Subject) -> dict[str, Any] | None:
    """Return LOCATION with the schemes of TLS; None for a backend that has none."""
    if alias.family != "redis":
        return None
    urls = [re.sub(r"^(redis|valkey)(?=[+:])", r"\1s", mask_url(location)) for location in alias.locations]
    return {"LOCATION": urls[0] if len(urls) == 1 else urls}


def _listed(endpoints: Iterable[Endpoint]) -> str:
    return ", ".join(dict.fromkeys(endpoint.address for endpoint in endpoints))


CHECKS: Final = (_check_blind_pickle, _check_unsigned, _check_weak_secret, _check_unsigned_pickles)
