from __future__ import annotations

import pytest

from foundation.errors import ConfigError
from ingest.tmdb.credentials import KEY_VARIABLE, TOKEN_VARIABLE, Credentials

API_KEY = "0123456789abcdef0123456789ABCDEF"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"


def test_a_token_goes_into_a_header_and_a_key_into_the_query() -> None:
    token = Credentials.from_environ({TOKEN_VARIABLE: f" {JWT}\n", KEY_VARIABLE: API_KEY})
    assert token is not None
    assert (token.headers, token.params) == ({"Authorization": f"Bearer {JWT}"}, {})
    key = Credentials.from_environ({TOKEN_VARIABLE: "", KEY_VARIABLE: API_KEY})
    assert key is not None
    assert (key.headers, key.params) == ({}, {"api_key": API_KEY})
    assert Credentials.from_environ({}) is None


def test_the_word_bearer_is_not_part_of_the_token() -> None:
    token = Credentials.from_environ({TOKEN_VARIABLE: f"Bearer {JWT}"})
    assert token is not None
    assert token.headers["Authorization"] == f"Bearer {JWT}"


def test_the_secret_is_not_shown() -> None:
    shown = repr(Credentials(KEY_VARIABLE, API_KEY)) + str(Credentials(TOKEN_VARIABLE, JWT))
    assert API_KEY not in shown
    assert JWT not in shown


@pytest.mark.parametrize(
    ("variable", "secret", "other"),
    [(TOKEN_VARIABLE, API_KEY, KEY_VARIABLE), (KEY_VARIABLE, JWT, TOKEN_VARIABLE)],
)
def test_a_credential_in_the_wrong_variable_is_recognised(
    variable: str, secret: str, other: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        Credentials.from_environ({variable: secret})
    assert f"{variable} holds what looks like" in str(caught.value)
    assert f"Put it in {other}" in str(caught.value)
    assert secret not in str(caught.value)


@pytest.mark.parametrize("secret", ["two words", "line\nbreak", "schlüssel"])
def test_what_cannot_be_a_header_is_refused(secret: str) -> None:
    with pytest.raises(ConfigError, match="Copy it again") as error:
        Credentials.from_environ({TOKEN_VARIABLE: secret})
    assert secret not in str(error.value)
