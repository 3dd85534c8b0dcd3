"""The user's TMDb credential: read from the environment only, and never shown.

Both kinds are listed at https://www.themoviedb.org/settings/api: the *API Read Access Token* (v4, a
long JWT) and the *API Key* (v3, 32 hexadecimal digits).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from foundation.errors import ConfigError

TOKEN_VARIABLE: Final = "TMDB_ACCESS_TOKEN"
KEY_VARIABLE: Final = "TMDB_API_KEY"

HOW_TO_GET_A_TOKEN: Final = (
    "Get a free token at https://www.themoviedb.org/settings/api (an account is needed; read "
    "TMDb's terms at https://www.themoviedb.org/api-terms-of-use first) and set "
    f"{TOKEN_VARIABLE} to the 'API Read Access Token', or {KEY_VARIABLE} to the 'API Key'."
)

_API_KEY: Final = re.compile(r"[0-9a-fA-F]{32}")
_JWT: Final = re.compile(r"eyJ[\w-]*\.[\w-]+\.[\w-]+")


@dataclass(frozen=True)
class Credentials:
    """A v4 token, sent as a header, or a v3 key, sent as a query parameter."""

    variable: str
    secret: str = field(repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Credentials | None:
        """The credential in ``environ``, the token before the key; ``None`` if there is none.

        Raises:
            ConfigError: if one kind is in the other's variable or it cannot be a credential.
        """
        for variable in (TOKEN_VARIABLE, KEY_VARIABLE):
            secret = environ.get(variable, "").strip()
            if secret:
                return cls._checked(variable, secret)
        return None

    @classmethod
    def _checked(cls, variable: str, secret: str) -> Credentials:
        if variable == TOKEN_VARIABLE:
            secret = re.sub(r"^[Bb]earer\s+", "", secret)
            if _API_KEY.fullmatch(secret):
                raise ConfigError(
                    f"{TOKEN_VARIABLE} holds what looks like a v3 API key (32 hexadecimal digits). "
                    f"Put it in {KEY_VARIABLE}, or put the v4 'API Read Access Token' (it begins "
                    f"with eyJ) in {TOKEN_VARIABLE}."
                )
        elif _JWT.fullmatch(secret):
            raise ConfigError(
                f"{KEY_VARIABLE} holds what looks like a v4 read access token (it begins with "
                f"eyJ). Put it in {TOKEN_VARIABLE}, or put the v3 'API Key' (32 hexadecimal "
                f"digits) in {KEY_VARIABLE}."
            )
        if not secret.isascii() or not secret.isprintable() or " " in secret:
            raise ConfigError(
                f"{variable} holds blanks or characters that no TMDb credential has. Copy it again "
                "from https://www.themoviedb.org/settings/api."
            )
        return cls(variable, secret)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that authenticate a request."""
        return {"Authorization": f"Bearer {self.secret}"} if self._is_token else {}

    @property
    def params(self) -> dict[str, str]:
        """Query parameters that authenticate a request."""
        return {} if self._is_token else {"api_key": self.secret}

    @property
    def expectation(self) -> str:
        """What the variable should hold, for a message after a refusal."""
        if self._is_token:
            return (
                f"{TOKEN_VARIABLE} must hold a v4 'API Read Access Token' (a long text that begins "
                f"with eyJ); a v3 'API Key' (32 hexadecimal digits) belongs in {KEY_VARIABLE}"
            )
        return (
            f"{KEY_VARIABLE} must hold a v3 'API Key' (32 hexadecimal digits); a v4 'API Read "
            f"Access Token' (it begins with eyJ) belongs in {TOKEN_VARIABLE}"
        )

    @property
    def _is_token(self) -> bool:
        return self.variable == TOKEN_VARIABLE
