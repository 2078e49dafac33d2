"""The secret that signs the values on a server."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from storeroom import config
from storeroom.serializers.secrets import secret_of

pytest.importorskip("django")


def test_without_django_the_secret_is_that_of_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Django, the secret is the one of OPTIONS, or none."""
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)
    assert secret_of(config.read_params({}, config.CODEC_OPTIONS)) is None
    written = config.read_params({"OPTIONS": {"secret": "s" * 16}}, config.CODEC_OPTIONS)
    assert secret_of(written) == "s" * 16


PROGRAM = """
import json, sys
from django.conf import settings
from storeroom import config
from storeroom.serializers.secrets import secret_of

settings.configure(**json.loads(sys.argv[1]))
secrets = secret_of(config.read_params({"OPTIONS": json.loads(sys.argv[2])}, config.CODEC_OPTIONS))
print(json.dumps([secret.hex() if isinstance(secret, bytes) else secret for secret in secrets or []]))
"""


def in_django(settings: dict[str, object], options: dict[str, object] | None = None) -> list[str]:
    """Ask in a process of its own, as Django's settings cannot be reset."""
    arguments = [json.dumps(settings), json.dumps(options or {})]
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    found: list[str] = json.loads(run.stdout)
    return found


def test_in_django_the_secret_is_made_of_secret_key() -> None:
    """In Django, a secret is derived from SECRET_KEY and each fallback, and none of them is a key itself."""
    one, other = in_django({"SECRET_KEY": "new", "SECRET_KEY_FALLBACKS": ["old"]})
    assert [one] == in_django({"SECRET_KEY": "new"})
    assert [other] == in_django({"SECRET_KEY": "old"})
    assert one != other
    assert len(bytes.fromhex(one)) == 32


def test_in_django_the_secret_of_the_options_counts() -> None:
    """In Django, a secret in OPTIONS counts before SECRET_KEY, and None means no secret."""
    assert in_django({"SECRET_KEY": "new"}, {"secret": ["given to both sides"]}) == ["given to both sides"]
    assert in_django({"SECRET_KEY": "new"}, {"secret": None}) == []


def test_django_without_a_secret_key_has_none() -> None:
    """In Django without SECRET_KEY, there is no secret."""
    assert in_django({}) == []
