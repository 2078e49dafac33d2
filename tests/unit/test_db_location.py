"""The table of a database cache: by LOCATION, by URL, by Django's DATABASES."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storeroom.backends.db import DatabaseCache
from storeroom.backends.db.location import Target, parse
from storeroom.backends.db.mysql_parameters import read_parameters
from storeroom.backends.db.site import Site
from storeroom.exceptions import ConfigurationError
from storeroom.registry.aliases import read_caches

REQUIRED, SOCKET = ("sslmode", "require"), ("unix_socket", "/s")
NOTHING: dict[str, Any] = {"url": None, "table": None}


def parsed(location: str, **options: Any) -> Target:
    return parse(location, NOTHING | options)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p%40ss@host:5433/db", ("postgresql", "u", "p@ss", "host", 5433, "db", ())),
        (
            "postgres://host/db?sslmode=require",
            ("postgresql", None, None, "host", None, "db", (("sslmode", "require"),)),
        ),
        ("postgresql+psycopg://u@%2Frun%2Fpg/db", ("postgresql", "u", None, "/run/pg", None, "db", ())),
        ("postgresql://", ("postgresql", None, None, None, None, None, ())),
        ("mysql://u:p@host/db", ("mysql", "u", "p", "host", None, "db", ())),
        (
            "mariadb+pymysql://host/db?unix_socket=/s",
            ("mysql", None, None, "host", None, "db", (("unix_socket", "/s"),)),
        ),
    ],
)
def test_url_of_a_server_is_split_into_its_parts(url: str, expected: tuple[Any, ...]) -> None:
    """A URL of a server, as url option or LOCATION, is split into vendor, credentials, host, database and query."""
    for target in (parsed("t", url=url), parsed(url, table="t")):
        found = (target.vendor, target.user, target.password, target.host, target.port, target.database, target.query)
        assert (found, target.table) == (expected, "t")


def test_url_of_a_file_is_relative_after_three_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite URL with three slashes is relative, with four absolute, and ~ is expanded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert parsed("t", url="sqlite:///a%20b.sqlite3").path == str(tmp_path / "a b.sqlite3")
    assert parsed("t", url="sqlite:////var/cache.sqlite3").path == "/var/cache.sqlite3"
    assert parsed("t", url="sqlite:///~/cache.sqlite3").path == "/home/somebody/cache.sqlite3"


def test_url_as_location_has_a_table_of_its_own_name() -> None:
    """A URL as LOCATION uses the table storeroom_cache unless the option table names another."""
    assert parsed("sqlite:////var/cache.sqlite3").table == "storeroom_cache"
    assert parsed("mysql://host/db", table="pages").table == "pages"


@pytest.mark.parametrize(
    ("location", "options", "message"),
    [
        ("t", {"url": "oracle://host/db"}, "whose scheme is unknown"),
        ("t", {"url": "postgressql://host/db"}, "Did you mean 'postgresql'"),
        ("t", {"url": "postgresql://host:port/db"}, "is not a URL"),
        ("t", {"url": "sqlite://"}, "LocMemCache"),
        ("t", {"url": "sqlite:///:memory:"}, "LocMemCache"),
        ("t", {"url": "sqlite://host/file"}, "after three slashes"),
        ("t", {"table": "u"}, "in one place"),
        ("mysql://host/db", {"url": "mysql://host/db"}, "the table's name as LOCATION"),
        ("", {"url": "mysql://host/db"}, "the name of a table"),
        ("x" * 55, {"url": "mysql://host/db"}, "up to 54 bytes"),
        ("a\x00b", {"url": "mysql://host/db"}, "the name of a table"),
    ],
)
def test_location_that_makes_no_sense_is_refused(location: str, options: dict[str, Any], message: str) -> None:
    """A URL or table that cannot be used raises ConfigurationError with the reason."""
    with pytest.raises(ConfigurationError, match=message):
        parsed(location, **options)


def test_no_error_and_no_repr_shows_a_password() -> None:
    """The password of a URL appears in no error, no repr and no breaker's name."""
    url = "oracle://user:very-secret@host/db"
    with pytest.raises(ConfigurationError) as caught:
        parsed("t", url=url)
    assert "very-secret" not in str(caught.value)
    assert "very-secret" not in repr(parsed("t", url=url.replace("oracle", "mysql")))
    cache = DatabaseCache("t", {"OPTIONS": {"url": url.replace("oracle", "postgresql")}})
    assert "very-secret" not in repr(cache) + cache._engine.breaker.name


def test_configuration_names_the_alias() -> None:
    """A wrong URL in CACHES is reported under its alias and LOCATION."""
    caches = {"default": {"BACKEND": "storeroom.backends.db.DatabaseCache", "LOCATION": "sqlite://"}}
    with pytest.raises(ConfigurationError, match=r"CACHES\['default'\]\['LOCATION'\] leads to the URL 'sqlite://'"):
        read_caches(caches)


# Parameters of drivers ------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["postgresql://host/db?sslmod=require", "mysql://host/db?ssl_c=ca.pem"])
def test_parameter_that_the_driver_does_not_know_is_refused(url: str) -> None:
    """An unknown parameter is refused: a misspelt one was perhaps meant to encrypt."""
    with pytest.raises(ConfigurationError, match=r"(?s)'ssl_c'.*Did you mean|sslmod"):
        DatabaseCache("t", {"OPTIONS": {"url": url}})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"unix_socket": "/s", "charset": "latin1"}, {"unix_socket": "/s"}),
        ({"ssl_disabled": "false"}, {"ssl_disabled": False}),
        ({"ssl_ca": "ca.pem"}, {"ssl_ca": "ca.pem", "ssl_verify_cert": True}),
        ({"ssl_ca": "ca.pem", "ssl_verify_cert": "no"}, {"ssl_ca": "ca.pem", "ssl_verify_cert": False}),
        ({"ssl": {"ca": "ca.pem"}}, {"ssl": {"ca": "ca.pem"}}),
        ({"ssl_mode": "disabled"}, {"ssl_disabled": True, "ssl": None}),
        ({"ssl_mode": "PREFERRED"}, {}),
        ({"ssl_mode": "REQUIRED"}, {"ssl": {"verify_mode": False, "check_hostname": False}}),
        (
            {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": "ca.pem"}},
            {"ssl": {"ca": "ca.pem", "verify_mode": True, "check_hostname": True}},
        ),
    ],
)
def test_parameters_are_translated_for_pymysql(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Parameters of MySQL's clients become the arguments of PyMySQL."""
    assert read_parameters(given, "MySQL (host)") == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ssl_disabled": "perhaps"}, "ssl_disabled='perhaps'; expected True or False"),
        ({"ssl_mode": "ALWAYS"}, "expected one of DISABLED"),
        ({"ssl_mode": "VERIFY_CA"}, "without a 'ca'"),
        ({"ssl": "yes"}, "'ssl'"),
    ],
)
def test_parameter_without_meaning_is_refused(given: dict[str, Any], message: str) -> None:
    """A parameter with a value that PyMySQL could not honour raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=message):
        read_parameters(given, "MySQL (host)")


# Django's DATABASES ---------------------------------------------------------------------------


@dataclass(frozen=True)
class DjangosSite(Site):
    """A database whose connection has not to be made: Django loads no driver for it."""

    @property
    def connection(self) -> Any:
        vendors = {"sqlite3": "sqlite", "postgis": "postgresql"}
        kind = self.settings["ENGINE"].rpartition(".")[2]
        return SimpleNamespace(vendor=vendors.get(kind, kind))


def site(engine: str, **settings: Any) -> Target:
    whole = {"NAME": "", "USER": "", "PASSWORD": "", "HOST": "", "PORT": "", "OPTIONS": {}, **settings}
    return DjangosSite("default", {"ENGINE": f"django.{engine}", **whole}, whole["NAME"], 0).target("t")


def test_site_on_a_server_is_found_by_its_settings() -> None:
    """A server in Django's DATABASES becomes a target, without options that concern Django's connections alone."""
    target = site(
        "db.backends.postgresql", NAME="shop", USER="u", PASSWORD="p", HOST="db", PORT="5433",
        OPTIONS={"sslmode": "require", "pool": True, "isolation_level": 3, "server_side_binding": True},
    )  # fmt: skip
    assert target == Target(
        "postgresql",
        "t",
        user="u",
        password="p",
        host="db",
        port=5433,
        database="shop",
        query=(REQUIRED,),
    )
    assert site("contrib.gis.db.backends.postgis", OPTIONS={"service": "shop"}).query == (("service", "shop"),)
    socket = site("db.backends.mysql", NAME="shop", HOST="/run/mysql.sock", OPTIONS={"charset": "utf8mb4"})
    assert (socket.host, dict(socket.query)["unix_socket"]) == (None, "/run/mysql.sock")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/srv/db.sqlite3", "/srv/db.sqlite3.cache"),
        (Path("/srv/db.sqlite3"), "/srv/db.sqlite3.cache"),
        ("file:/srv/my%20db.sqlite3?mode=rw", "/srv/my db.sqlite3.cache"),
    ],
)
def test_site_in_a_file_has_the_cache_beside_it(name: Any, path: str) -> None:
    """A SQLite site has its cache in a file beside its own, with .cache appended."""
    settings = {"ENGINE": "django.db.backends.sqlite3", "NAME": name}
    assert DjangosSite("default", settings, str(name), 0).target("t").path == path


@pytest.mark.parametrize("name", [":memory:", "file:memorydb_default?mode=memory&cache=shared"])
def test_site_in_memory_has_the_cache_in_a_file_of_this_process(name: str) -> None:
    """A site in memory has its cache in a temporary file, one for each database name."""
    first, second = (site("db.backends.sqlite3", NAME=name).path for _ in range(2))
    assert first == second
    assert Path(first).parent.is_dir()
    assert first != site("db.backends.sqlite3", NAME=f"{name}2").path
