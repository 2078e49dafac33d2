"""Texts that are marked as safe for HTML, in every serializer."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.utils.safestring import SafeString

from storeroom.exceptions import SerializationError
from storeroom.serializers import build_codec

SAFE = SafeString("<b>\ud800é</b>")
PLAIN: dict[str, Any] = {"json": {"serializer": "json"}, "msgpack": {"serializer": "msgpack"}, "no secret": {}}


class Markup(str):
    """As that of MarkupSafe, which escapes all that it is joined with."""

    __slots__ = ()
    __module__ = "markupsafe"

    def __str__(self) -> "Markup":
        return self


class Word(str):
    """A text of a class of the program's own."""

    __slots__ = ()


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize("text", [SAFE, Markup("<i>")], ids=["Django", "MarkupSafe"])
def test_markup_is_text_where_there_is_plain_data_alone(options: dict[str, Any], text: str) -> None:
    """It comes back as a plain text, by itself, within containers and as a key."""
    codec = build_codec(**options)
    for value in (text, [text, {"a": text}], {text: 1}):
        found = codec.loads(codec.dumps(value, "k"), "k")
        assert found == value
        assert type(found) is (str if value is text else type(value))
    nested = codec.loads(codec.dumps([text, {text: text}], "k"), "k")
    assert {type(part) for part in (nested[0], *nested[1], *nested[1].values())} == {str}


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_other_texts_are_refused(options: dict[str, Any]) -> None:
    """A text of another class would come back as another one, and is refused by name."""
    with pytest.raises(SerializationError, match="Word"):
        build_codec(**options).dumps([Word("a")], "k")


@pytest.mark.parametrize("options", [{"secret": "s" * 32}, {"trusted": True}], ids=["signed", "trusted"])
def test_markup_keeps_its_mark_where_only_the_program_writes(options: dict[str, Any]) -> None:
    """With a secret, and in files, a SafeString stays one."""
    codec = build_codec(**options)
    assert type(codec.loads(codec.dumps(SAFE, "k"), "k")) is SafeString


PROGRAM = """
import sys, django
from django.conf import settings
caches = {
    name: {
        "BACKEND": "storeroom.backends.filebased.FileBasedCache", "LOCATION": f"{sys.argv[1]}/{name}",
        "OPTIONS": {"serializer": name},
    }
    for name in ("json", "msgpack")
}
settings.configure(
    SECRET_KEY="x" * 50, CACHES={**caches, "default": caches["json"]},
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()
from django.template import engines
for name in caches:
    source = "{% load cache %}{% cache 100 part using='" + name + "' %}<b>{{ n }}</b>{% endcache %}"
    template = engines["django"].from_string(source)
    print(template.render({"n": "<1>"}), template.render({"n": "<2>"}))
"""


def test_a_fragment_of_a_template_is_stored(tmp_path: Path) -> None:
    """Django's {% cache %} finds the fragment that it has stored, and does not escape it once more."""
    command = [sys.executable, "-W", "error", "-c", PROGRAM, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["<b>&lt;1&gt;</b> <b>&lt;1&gt;</b>"] * 2
