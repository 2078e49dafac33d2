"""From LOCATION and OPTIONS to servers; nothing is connected to."""

import ssl
from typing import Any

import pytest

from storeroom import config
from storeroom.backends.policies import IGNORED
from storeroom.backends.redis import RedisCache
from storeroom.backends.redis.location import Server, Target, parse
from storeroom.backends.redis.options import OPTIONS, settled
from storeroom.exceptions import ConfigurationError
from storeroom.integrations.django_redis import RedisCache as DjangoRedisCache
from storeroom.registry.aliases import read_caches

REDIS = "storeroom.backends.redis.RedisCache"


def target(location: Any, **options: Any) -> Target:
    settings = config.read_params({"OPTIONS": options}, OPTIONS)
    return parse(location, settled(settings))


@pytest.mark.parametrize(
    ("location", "server"),
    [
        ("redis://localhost", Server("localhost", 6379)),
        ("redis://", Server("localhost", 6379)),
        ("redis://h:7000/3", Server("h", 7000, db=3)),
        ("redis://h/", Server("h")),
        ("valkey://h:7000/3", Server("h", 7000, db=3)),
        ("redis://:pw@h", Server("h", password="pw")),
        ("redis://me:p%40w@h", Server("h", username="me", password="p@w")),
        ("rediss://h:6380", Server("h", 6380, tls=True)),
        ("valkeys://h", Server("h", tls=True)),
        ("redis://[::1]:7000/1", Server("::1", 7000, db=1)),
        ("redis://[::1]", Server("::1")),
        ("redis://h?db=4", Server("h", db=4)),
        ("unix:///run/redis.sock", Server("", path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=2", Server("", path="/run/redis.sock", db=2)),
        ("unix://me:pw@/run/redis.sock", Server("", path="/run/redis.sock", username="me", password="pw")),
    ],
)
def test_url_of_one_server_gives_its_parts(location, server):
    """A URL of one server gives its host, port, database, login, TLS or socket."""
    found = target(location)
    assert (found.kind, found.servers) == ("server", (server,))


@pytest.mark.parametrize(
    "location",
    [
        "redis://a:1/0,redis://b:2/0",
        "redis://a:1/0;redis://b:2/0",
        " redis://a:1/0 , redis://b:2/0 ",
        ["redis://a:1/0", "redis://b:2/0"],
        ("redis://a:1/0", "redis://b:2/0"),
    ],
)
def test_several_urls_give_their_servers(location):
    """Several URLs, as text or list, give their servers in order: as in Django, the first is written to."""
    assert target(location).servers == (Server("a", 1), Server("b", 2))


@pytest.mark.parametrize(
    ("location", "options", "db"),
    [("redis://h", {"db": 5}, 5), ("redis://h/3", {"db": 5}, 3), ("redis://h/0", {"db": 5}, 0), ("redis://h", {}, 0)],
)
def test_number_of_the_database_in_the_url_counts_before_the_option(location, options, db):
    """A database number in the URL counts before OPTIONS["db"], 0 included."""
    assert target(location, **options).servers[0].db == db


def test_login_in_the_url_counts_before_the_options():
    """User and password of the URL count before those of OPTIONS."""
    login = {"username": "u", "PASSWORD": "p"}
    assert target("redis://h", **login).servers == (Server("h", username="u", password="p"),)
    assert target("redis://me:mine@h", **login).servers == (Server("h", username="me", password="mine"),)


def test_sentinel_url_gives_sentinels_and_primary():
    """A redis+sentinel URL gives the Sentinels, the service, and a primary with login and database."""
    found = target("redis+sentinel://me:pw@a:1,b/mymaster/4", sentinel_kwargs={"password": "s"})
    assert found.kind == "sentinel"
    assert found.service == "mymaster"
    assert found.sentinels == (Server("a", 1, password="s"), Server("b", 26379, password="s"))
    assert found.servers == (Server(db=4, username="me", password="pw", must_be_primary=True),)
    assert target("rediss+sentinel://a/m").sentinels == (Server("a", 26379, tls=True),)


def test_cluster_url_gives_its_nodes():
    """A redis+cluster URL gives its nodes, each with the login."""
    found = target("redis+cluster://:pw@a:1,b")
    assert (found.kind, found.servers) == ("cluster", (Server("a", 1, password="pw"), Server("b", password="pw")))


def test_options_in_the_query_count_before_options():
    """An option in the query of the URL counts before the same one in OPTIONS."""
    found = target("redis://h?socket_timeout=5&ssl_cert_reqs=none", socket_timeout=1, max_connections=3)
    assert dict(found.options)["socket_timeout"] == 5.0
    assert dict(found.options)["ssl_cert_reqs"] == "none"
    assert dict(found.options)["max_connections"] == 3


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("", "LOCATION is empty"),
        ([], "LOCATION is empty"),
        ("localhost:6379", "LOCATION is 'localhost:6379'; expected a URL of one of the schemes redis, valkey"),
        ("http://h", "expected a URL of one of the schemes"),
        ("redis://h:port", "whose port is wrong"),
        ("redis://h:70000", "whose port is wrong"),
        ("redis://h/name", "expected the database's number after the host"),
        ("redis://a,b", "expected one host, or a URL for each"),
        ("redis+sentinel://a:1", "expected the primary's name after the hosts"),
        ("redis+cluster://a/3", "a cluster has database 0 alone"),
        ("redis://a,redis+cluster://b", "a list of URLs of several kinds"),
        ("redis+sentinel://a/m,redis+sentinel://b/m", "a list of URLs of several kinds"),
        ("unix://", "expected the path of a socket"),
        ("redis://h?max_connection=5", "whose query holds 'max_connection'; expected options of connections: db"),
        ("redis://h?max_connection=5", "Did you mean 'max_connections'?"),
        ("redis://h?is_master=1", "whose query holds 'is_master'"),
        ("redis://h?timeout=5", "whose timeout is wrong; expected OPTIONS['socket_timeout'], for which a server"),
        ("redis://h?decode_responses=True", "whose decode_responses is wrong; expected False"),
        ("redis://h?socket_timeout=soon", "whose socket_timeout is wrong; expected a number"),
        ("redis://[::1", "which is not a URL"),
    ],
)
def test_mistake_in_location_is_told(location, message):
    """A wrong LOCATION raises ConfigurationError with its text and the forms expected."""
    with pytest.raises(ConfigurationError) as caught:
        target(location)
    assert message in str(caught.value)
    assert str(caught.value).startswith("LOCATION is")


def test_mistake_in_location_names_the_alias_and_no_password():
    """The error for a wrong LOCATION names the alias and masks the password."""
    with pytest.raises(
        ConfigurationError, match=r"CACHES\['default'\]\['LOCATION'\] is 'redis://\*\*\*@h:x'"
    ) as caught:
        read_caches({"default": {"BACKEND": REDIS, "LOCATION": "redis://u:hunter2@h:x"}})
    assert "hunter2" not in str(caught.value)


def test_password_is_in_no_repr():
    """The password of a URL or option does not appear in the target's repr."""
    assert "hunter2" not in repr(target("redis://u:hunter2@h", password="hunter2"))


# Settings of other backends -----------------------------------------------------------------


def test_configuration_of_django_redis_readme_is_understood():
    """The configuration of django-redis's README builds a cache with the same meaning."""
    found = read_caches(
        {
            "default": {
                "BACKEND": REDIS,
                "LOCATION": "redis://127.0.0.1:6379/1",
                "OPTIONS": {
                    "CLIENT_CLASS": "django_redis.client.DefaultClient",
                    "PASSWORD": "mysecret",
                    "SOCKET_CONNECT_TIMEOUT": 5,
                    "SOCKET_TIMEOUT": 5,
                    "COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor",
                    "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
                    "IGNORE_EXCEPTIONS": True,
                    "PICKLE_VERSION": -1,
                    "CONNECTION_POOL_KWARGS": {"max_connections": 100, "retry_on_timeout": True},
                },
            }
        }
    )["default"]
    cache = found.build()
    assert isinstance(cache, RedisCache)
    options = cache.settings.options
    assert (options["on_error"], options["serializer"], options["compressor"]) == (IGNORED, "json", "zlib")
    assert (options["socket_timeout"], options["max_connections"]) == (5.0, 100)


def test_path_of_django_redis_stands_for_the_class_of_its_interface():
    """A program without a Django site, such as a worker's, reads what the site has written, by the same CACHES."""
    written = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": "redis://h/1", "OPTIONS": {"PICKLE_VERSION": -1}}
    cache = read_caches({"default": written | {"TIMEOUT": 60}})["default"].build()
    assert type(cache) is DjangoRedisCache
    assert (cache.settings.options["pickle_version"], cache.settings.options["on_error"]) == (5, "raise")


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ({"IGNORE_EXCEPTIONS": False}, "on_error", "raise"),
        ({"IGNORE_EXCEPTIONS": False, "on_error": "miss"}, "on_error", "miss"),
        ({"CONNECTION_POOL_KWARGS": {"max_connections": 9}, "max_connections": 7}, "max_connections", 7),
        ({"REDIS_CLIENT_KWARGS": {"client_name": "x"}}, "client_name", "x"),
        ({"COMPRESSOR": "django_redis.compressors.identity.IdentityCompressor"}, "compressor", None),
        ({"SERIALIZER": "django_redis.serializers.msgpack.MSGPackSerializer"}, "serializer", "msgpack"),
        ({"serializer": "django.core.cache.backends.redis.RedisSerializer"}, "serializer", "pickle"),
        ({"ssl_cert_reqs": ssl.CERT_NONE}, "ssl_cert_reqs", "none"),
        ({"ssl_cert_reqs": None}, "ssl_cert_reqs", "none"),
        ({"pool_class": "redis.BlockingConnectionPool"}, "pool_class", None),
        ({"REPLICA_READ_ONLY": True}, "replica_read_only", True),
        ({"CONNECTION_POOL_KWARGS": {"retry_on_error": [TimeoutError]}}, "socket_timeout", 1.0),
        ({"CLIENT_CLASS": "django_redis.client.HerdClient"}, "client_class", None),
        ({"parser_class": "redis.connection.PythonParser"}, "parser_class", None),
        ({"ssl_cert_reqs": "CERT_NONE"}, "ssl_cert_reqs", "none"),
        ({"ssl_min_version": ssl.TLSVersion.TLSv1_3}, "ssl_min_version", ssl.TLSVersion.TLSv1_3),
        ({"CONNECTION_POOL_KWARGS": {"ssl_min_version": "1.2"}}, "ssl_min_version", ssl.TLSVersion.TLSv1_2),
        ({"CONNECTION_POOL_KWARGS": {"timeout": 20, "max_connections": 50}}, "max_connections", 50),
        ({"REDIS_CLIENT_KWARGS": {"ssl": False, "single_connection_client": True}}, "redis_client_kwargs", {}),
        ({"CONNECTION_POOL_KWARGS": None, "SENTINEL_KWARGS": None}, "connection_pool_kwargs", None),
    ],
)
def test_spellings_of_other_backends_are_understood(options, name, value):
    """Options of django-redis and redis-py set those of Storeroom, which count first if both are given."""
    assert settled(config.read_params({"OPTIONS": options}, OPTIONS))[name] == value


def test_sentinel_is_understood_as_django_redis_spells_it():
    """SENTINELS with a service as the host of the URL give a Sentinel target."""
    found = target(
        "redis://mymaster/2",
        CLIENT_CLASS="django_redis.client.SentinelClient",
        CONNECTION_POOL_CLASS="redis.sentinel.SentinelConnectionPool",
        SENTINELS=[("a", 1), ("b", 2)],
    )
    assert (found.kind, found.service) == ("sentinel", "mymaster")
    assert found.sentinels == (Server("a", 1), Server("b", 2))
    assert found.servers[0].db == 2


@pytest.mark.parametrize(
    "location",
    [
        "redis://mymaster/2?is_master=1",
        ["redis://mymaster/2?is_master=1", "redis://mymaster/2?is_master=0"],
        ["redis://mymaster/2", "redis://mymaster/2"],
    ],
)
def test_sentinel_with_replicas_is_understood_as_django_redis_spells_it(location):
    """A service named for primary and replicas, as on django-redis's page, is one target on the primary."""
    found = target(
        location,
        CLIENT_CLASS="django_redis.client.DefaultClient",
        CONNECTION_FACTORY="django_redis.pool.SentinelConnectionFactory",
        SENTINELS=[("a", 1)],
    )
    assert (found.kind, found.service, found.servers[0].db) == ("sentinel", "mymaster", 2)
    with pytest.raises(ConfigurationError, match="a list of URLs of several kinds"):
        target(["redis://mymaster/2", "redis://another/2"], SENTINELS=[("a", 1)])


def test_parameter_of_redis_py_without_effect_is_accepted():
    """Parameters of redis-py without effect here are accepted in a URL and dropped."""
    quiet = "retry_on_timeout=true&health_check_interval=30&protocol=3&socket_keepalive=yes&decode_responses=false"
    assert target(f"redis://h?{quiet}") == target("redis://h?socket_keepalive=True")


def test_sentinels_may_have_timeouts_of_their_own():
    """A timeout in sentinel_kwargs counts for the Sentinels, that of OPTIONS for the primary."""
    cache = RedisCache(
        "redis+sentinel://a/m", {"OPTIONS": {"socket_timeout": 3, "sentinel_kwargs": {"socket_timeout": 0.5}}}
    )
    sentinel, primary = cache._engine.target.sentinels[0], cache._engine.target.servers[0]
    assert cache._engine._connection_settings(sentinel)["socket_timeout"] == 0.5
    assert cache._engine._login(sentinel).timeout == 0.5
    assert cache._engine._connection_settings(primary)["socket_timeout"] == 3
    assert cache._engine._login(primary).timeout == 3


def test_cluster_is_understood_as_django_redis_spells_it():
    """REDIS_CLIENT_CLASS of a cluster makes the URLs the nodes of a cluster."""
    assert target("redis://a:1,redis://b:2", REDIS_CLIENT_CLASS="redis.cluster.RedisCluster").kind == "cluster"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"CLIENT_CLASS": "django_redis.client.ShardClient"}, "a LOCATION of redis+cluster://"),
        ({"pool_class": "app.Pool"}, "which max_connections and the timeouts bound"),
        ({"parser_class": "app.Parser"}, "replies are always parsed by hiredis"),
        ({"CONNECTION_FACTORY": "app.Factory"}, "a LOCATION of redis://"),
        ({"CONNECTION_POOL_KWARGS": {"max_conections": 1}}, "'max_conections' has no meaning here"),
        ({"CONNECTION_POOL_KWARGS": {"max_connections": 0}}, "'max_connections' is a whole number, at least 1"),
        ({"CONNECTION_POOL_KWARGS": {"decode_responses": True}}, "values are bytes"),
        ({"SENTINELS": ["a"]}, "a list of (host, port) pairs"),
        ({"CONNECTION_POOL_KWARGS": {"max_connection": 20}}, "Did you mean 'max_connections'?"),
        ({"timeout": 20}, "OPTIONS['pool_timeout'], for which a connection is"),
        ({"REDIS_CLIENT_KWARGS": {"ssl": True}}, "a LOCATION whose scheme has TLS: rediss://"),
        ({"SENTINEL_KWARGS": {"ssl": True}}, "a LOCATION whose scheme has TLS: rediss://"),
        ({"SENTINEL_KWARGS": {"db": 1}}, "'db' has no meaning here"),
        ({"host": "h"}, "LOCATION, whose URL tells the servers"),
        ({"unix_socket_path": "/run/redis.sock"}, "LOCATION, whose URL tells the servers"),
        ({"socket_keepalive_options": {}}, "intervals that the system sets"),
        ({"cache_config": object()}, "OPTIONS['near'], which keeps entries in the process's memory"),
        ({"ssl_validate_ocsp": True}, "certificates are verified without OCSP"),
        ({"ssl_min_version": "1.1"}, '"1.2", "1.3", or a constant of ssl.TLSVersion'),
        ({"replica_max_lag": 0}, "or None for no bound"),
        ({"REPLICA_READ_ONLY": False}, "written to the first server of LOCATION"),
        ({"MAX_ENTRIES": 100}, "a server bounds itself, by maxmemory and maxmemory-policy"),
    ],
)
def test_option_without_meaning_here_is_refused_with_the_remedy(options, message):
    """An option without meaning here raises ConfigurationError with the option or LOCATION to use."""
    with pytest.raises(ConfigurationError) as caught:
        config.read_params({"OPTIONS": options}, OPTIONS)
    assert message in str(caught.value)


def test_reverse_key_function_is_not_needed():
    """REVERSE_KEY_FUNCTION of django-redis is refused with the reason that it is not needed."""
    settings = {"BACKEND": REDIS, "LOCATION": "redis://h", "REVERSE_KEY_FUNCTION": "app.reverse"}
    with pytest.raises(ConfigurationError, match=r"'REVERSE_KEY_FUNCTION', of django-redis\. Remove it: keys\(\)"):
        read_caches({"default": settings})


def test_sentinel_class_without_sentinels_is_told():
    """A Sentinel client class without SENTINELS raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match="without naming any"):
        target("redis://mymaster/2", CLIENT_CLASS="django_redis.client.SentinelClient")


# Engines ------------------------------------------------------------------------------------


def test_handles_of_one_location_share_an_engine():
    """Two handles of one location share an engine under any prefix, and another database has another."""
    one, other = RedisCache("redis://h/1", {}), RedisCache("redis://h/1", {"KEY_PREFIX": "x"})
    assert one._engine is other._engine
    assert RedisCache("redis://h/2", {})._engine is not one._engine


def test_handles_with_different_passwords_share_no_engine():
    """Two handles of one server with different passwords have different engines."""
    one, other = RedisCache("redis://:a@h/1", {}), RedisCache("redis://:b@h/1", {})
    assert one._engine is not other._engine
