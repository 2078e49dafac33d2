"""From key to storage key and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storeroom.exceptions import ConfigurationError
from storeroom.keys import KeySpace, default_key_func, escaped, get_key_func, shorten


def dashed(key, key_prefix, version):
    return f"{key_prefix}-v{version}-{key}!"


def hashed(key, key_prefix, version):
    return str(hash((key, key_prefix, version)))


def glued(key, key_prefix, version):
    return f"{key_prefix}/{version}{key}"


def upper_case(key, key_prefix, version):
    return f"{key_prefix}:{version}:{key}".upper()


def short(key, key_prefix, version):
    return hashed(key, key_prefix, version) if len(key) > 200 else f"{key_prefix}:{version}:{key}"


def refusing(key, key_prefix, version):
    raise LookupError("there is no tenant now")


def choosy(key, key_prefix, version):
    if "\x00" in str(key) or len(key) > 200:
        raise TypeError("no control characters, and no long keys")
    return f"{key_prefix}:{version}:{key}"


def mended(key, key_prefix, version):
    return f"{key_prefix}:{version}:{key.replace(' ', '_')}"


def digested(key, key_prefix, version):
    return f"{key_prefix}-v{version}-x{hashed(key, key_prefix, version)}"


def padded(key, key_prefix, version):
    return f"{key_prefix}:{version:04d}:{key}"


@pytest.mark.parametrize(
    ("key", "key_prefix", "version", "storage_key"),
    [
        ("user:7", "shop", 2, "shop:2:user:7"),
        ("", "", 1, ":1:"),
        (7, "", 1, ":1:7"),
        (("a", 1), "p", 1, "p:1:('a', 1)"),
        ("ключ", "", 3, ":3:ключ"),
    ],
)
def test_default_key_function_is_that_of_django(key, key_prefix, version, storage_key):
    """The storage key is prefix, version and key, with colons between."""
    assert default_key_func(key, key_prefix, version) == storage_key


def test_key_function_is_found_by_its_dotted_path():
    """A dotted path in KEY_FUNCTION gives the function."""
    assert get_key_func("storeroom.keys.default_key_func") is default_key_func


def test_key_function_may_be_a_callable_or_left_out():
    """A callable is used as it is, and None means the default."""
    assert get_key_func(dashed) is dashed
    assert get_key_func(None) is default_key_func


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("storeroom.keys.no_such", r"'storeroom\.keys\.no_such', which cannot be imported"),
        ("no_such_module.make_key", r"'no_such_module\.make_key', which cannot be imported"),
        ("make_key", r"'make_key', which cannot be imported"),
        ("storeroom.keys.__all__", r"'storeroom\.keys\.__all__', which is a list"),
    ],
)
def test_key_function_that_is_none_is_refused(path, message):
    """A path that cannot be imported, or leads to no callable, raises ConfigurationError."""
    with pytest.raises(ConfigurationError, match=rf"{message}.*expected a callable f\(key, key_prefix, version\)"):
        get_key_func(path)


def test_shortened_key_keeps_its_start_and_its_identity():
    """A long key is cut to the length with its start kept, and two long keys stay different."""
    long, other = "user:" + "x" * 1000, "user:" + "x" * 1001
    assert len(shorten(long, 100)) == 100
    assert shorten(long, 100).startswith("user:xxx")
    assert shorten(long, 100) == shorten(long, 100) != shorten(other, 100)
    assert len(shorten("\ud800" * 300, 100)) == 100  # not encodable strictly


@pytest.mark.parametrize("key_func", [default_key_func, dashed])
@given(key=st.text(), key_prefix=st.text(max_size=5), version=st.integers(min_value=0, max_value=10**6))
def test_reversible_key_space_gives_the_caller_key_back(key_func, key, key_prefix, version):
    """A key function that can be read back returns the key from a storage key of its version, and from no other."""
    space = KeySpace(key_func, key_prefix)
    storage_key = escaped(key_func(key, key_prefix, version))
    assert space.is_reversible
    assert storage_key.startswith(space.head(version))
    assert storage_key.startswith(space.start())
    assert space.caller_key(storage_key, version) == key
    assert space.caller_key(storage_key, version + 1) is None
    assert space.owns(storage_key)


@pytest.mark.parametrize("key_func", [hashed, glued, short, refusing])
def test_key_space_of_hidden_keys_says_so(key_func):
    """Storage keys that cannot be told from others', be it those of long keys alone, may be anybody's."""
    space = KeySpace(key_func, "p")
    assert space.is_opaque
    assert not space.is_reversible
    assert (space.head(1), space.start()) == ("", "")
    assert space.owns("anything")
    assert space.caller_key("anything", 1) is None


@pytest.mark.parametrize(("key_func", "head"), [(mended, "p:3:"), (upper_case, "P:3:"), (digested, "p-v3-")])
def test_key_space_of_keys_that_cannot_be_read_back_knows_whose_they_are(key_func, head):
    """A function that changes keys, some or all, and leaves prefix and version before them is known by these."""
    space = KeySpace(key_func, "p")
    assert (space.is_opaque, space.is_reversible) == (False, False)
    assert space.head(3) == head
    assert space.owns(key_func("any key", "p", 3))
    assert not space.owns(key_func("any key", "q", 3))
    assert space.caller_key(f"{head}k", 3) is None


def test_key_space_of_keys_without_version_is_read_back():
    """Storage keys of prefix and key alone are read back, and are those of all versions."""
    space = KeySpace(lambda key, key_prefix, _: f"{key_prefix}.{key}", "p")
    assert (space.is_opaque, space.lists(1), space.head(1), space.start()) == (False, True, "p.", "p.")
    assert (space.caller_key("p.k", 7), space.caller_key("q.k", 7)) == ("k", None)
    assert (space.owns("p.k"), space.owns("q.k"), space.owns("\x00tag\x00p.k")) == (True, False, True)


def test_key_space_of_keys_alone_is_everything_but_internal():
    """Storage keys that are keys are read back, those that begin with NUL included; internal names are none."""
    space = KeySpace(lambda key, *_: key, "p")
    assert (space.is_opaque, space.head(1), space.beginning("\x00a", 1)) == (False, "", "\x00\x00a")
    assert (space.caller_key("k", 1), space.caller_key("\x00\x00a", 1), space.caller_key("\x00a", 1)) == (
        "k",
        "\x00a",
        None,
    )
    assert (space.owns("k"), space.owns("\x00\x00a"), space.owns("\x00lock\x00a")) == (True, True, False)


def test_key_space_of_a_function_that_refuses_keys_is_that_of_the_others():
    """A key that the function refuses is never stored, and counts for nothing."""
    assert KeySpace(choosy, "p").lists(1)


def test_key_space_lists_no_version_that_is_written_in_another_way():
    """Storage keys with padded versions are owned, and those of a version that is padded are not read back."""
    space = KeySpace(padded, "p")
    assert (space.lists(1234), space.lists(1)) == (True, False)
    assert space.owns("p:0001:k")


@pytest.mark.parametrize(
    ("storage_key", "is_owned"),
    [
        ("a:1:key", True),
        ("a:25:x:y:z", True),
        ("a:-1:key", True),
        ("a:b:1:key", False),  # of the prefix "a:b"
        ("b:1:key", False),
        ("a:1", False),
        ("a", False),
        ("ab:1:key", False),
        ("", False),
    ],
)
def test_key_space_owns_the_keys_of_its_prefix(storage_key, is_owned):
    """A prefix owns storage keys with that very prefix, a version and a key."""
    assert KeySpace(default_key_func, "a").owns(storage_key) is is_owned


def test_key_space_of_the_empty_prefix_leaves_prefixed_keys_alone():
    """The empty prefix owns no key of another prefix."""
    space = KeySpace(default_key_func, "")
    assert space.owns(":1:key")
    assert not space.owns("shop:1:key")


def test_key_space_of_a_key_function_with_a_tail_minds_the_tail():
    """A storage key without the tail that the key function appends is not owned."""
    space = KeySpace(dashed, "p")
    assert space.caller_key("p-v1-key!", 1) == "key"
    assert space.caller_key("p-v1-key", 1) is None
    assert not space.owns("p-v1-key")
