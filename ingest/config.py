"""Settings of the ingester: which ratings to read, and how to enrich movies from TMDb."""

from __future__ import annotations

import re
from ipaddress import ip_address
from math import inf, isfinite
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from foundation.config import Section, UsablePath
from foundation.errors import shortened, without_secrets
from ingest.registry import AUTO, NETFLIX, SOURCES, SYNTHETIC, TABLE, meanings

if TYPE_CHECKING:
    SourceName = str
else:
    # Names are checked, and listed in messages, as those of any other choice.
    SourceName = Literal[(AUTO, *SOURCES)]

_LABEL: Final = "[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST: Final = re.compile(rf"(?!.{{254}}){_LABEL}(\.{_LABEL})*\.?", re.IGNORECASE)

_SOURCE: Final = f"Where the ratings come from. {meanings()}."


class SyntheticConfig(Section):
    """Shape of the generated data set."""

    num_users: Annotated[int, Field(ge=2, le=10_000_000)] = 300
    """Number of users."""
    num_movies: Annotated[int, Field(ge=2, le=10_000_000)] = 500
    """Number of movies."""
    num_ratings: Annotated[int, Field(ge=10, le=10**15)] = 20_000
    """Number of ratings, each of another (user, movie) pair."""
    noise: Annotated[float, Field(ge=0, le=100)] = 0.6
    """Standard deviation in stars of the noise added to each rating before rounding."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of the generator; the same seed gives the same data set."""


class ColumnsConfig(Section):
    """Names of a table's columns; those that are empty are recognised by usual names.

    Columns of a file without a header line are named by their positions, from 1.
    """

    user: str = ""
    """Ids of users: whole numbers or texts."""
    item: str = ""
    """Ids of movies, in the tables of ratings and of movies."""
    rating: str = ""
    """Ratings; a table without them holds choices, such as clicks."""
    time: str = ""
    """When the rating was given: whole numbers (``data.timestamp_unit``) or ISO dates."""
    title: str = ""
    """Titles, in the table of movies."""
    genres: str = ""
    """Genres of a movie, separated by bars, commas, semicolons or slashes."""
    year: str = ""
    """Years of release."""
    imdb: str = ""
    """IMDb ids, by which TMDb finds movies."""
    tmdb: str = ""
    """TMDb ids."""

    @model_validator(mode="after")
    def _columns_of_ratings_differ(self) -> Self:
        names = [name for name in (self.user, self.item, self.rating, self.time) if name]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise ValueError(
                f"the column {repeated[0]!r} is named twice; expected another one for each of "
                "user, item, rating and time"
            )
        return self


class DataConfig(Section):
    """Which ratings to train on."""

    source: Annotated[SourceName, Field(description=_SOURCE)] = AUTO
    path: UsablePath = ""
    """Local folder, zip archive or table with the data; nothing is downloaded if it is set. A table
    is a CSV file with any separator, also compressed (.gz, .zst, .bz2), or a Parquet file."""
    movies: UsablePath = ""
    """Table with titles, genres and years of the movies, for ``source = "table"``; by default the
    file movies or items in the folder ``path``."""
    columns: ColumnsConfig = ColumnsConfig()
    """Which columns of tables are meant."""
    rating_scale: tuple[float, float] | None = None
    """Lowest and highest rating of a table, such as [1, 10], which become 0.5 and 5 stars; by
    default, and of [1, 5], ratings are stars as they are."""
    duplicates: Literal["refuse", "last", "mean"] = "refuse"
    """What counts if a user rated a movie several times: the last rating, or the mean; by default
    this is an error. For tables and files in MovieLens' layouts."""
    timestamp_unit: Literal["auto", "s", "ms", "us", "ns", "days", "YYYYMMDD"] = "auto"
    """Unit of the timestamps in files of ratings of MovieLens' layouts: since 1970-01-01 UTC, or
    dates such as 20050402. ``auto`` takes seconds, or else the unit in which all are between 1990
    and today; another one, or older times, must be named."""
    download_url: str = "https://files.grouplens.org/datasets/movielens"
    """Where MovieLens releases are downloaded from, without the final slash and file name."""
    synthetic: SyntheticConfig = SyntheticConfig()
    """Shape of the generated data set."""

    @field_validator("download_url")
    @classmethod
    def _is_a_url(cls, url: str) -> str:
        _scheme_and_host("download_url", url)
        return url

    @field_validator("rating_scale")
    @classmethod
    def _ends_differ(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not (isfinite(scale[0]) and scale[0] < scale[1] < inf):
            raise ValueError(f"rating_scale is {list(scale)}, expected [lowest, highest]")
        return scale

    @property
    def describes_a_table(self) -> bool:
        """Whether a setting is given that only tables have."""
        default = type(self).model_fields
        names = ("movies", "columns", "rating_scale")
        return any(getattr(self, name) != default[name].default for name in names)

    @model_validator(mode="after")
    def _only_tables_have_columns(self) -> Self:
        settings = "movies, columns and rating_scale"
        if self.source not in (AUTO, TABLE) and self.describes_a_table:
            raise ValueError(f'{settings} are settings of tables; set source = "{TABLE}"')
        if self.source == AUTO and self.describes_a_table and not self.path:
            raise ValueError(f"{settings} describe a table; set data.path to it")
        return self

    @model_validator(mode="after")
    def _only_files_have_repeated_ratings(self) -> Self:
        if self.duplicates != "refuse" and self.source in (SYNTHETIC, NETFLIX):
            raise ValueError(f'duplicates is no setting of source = "{self.source}"; leave it out')
        return self

    @model_validator(mode="after")
    def _a_path_is_set(self) -> Self:
        entry = SOURCES.get(self.source)
        if entry is not None and entry.path is not None and not self.path:
            raise ValueError(f'source = "{self.source}" needs data.path, {entry.path}')
        return self


class TmdbConfig(Section):
    """How movies are enriched from TMDb."""

    enabled: Literal["auto", True, False] = "auto"
    """``auto``: if a token is in the environment (always so for synthetic data)."""
    base_url: str = "https://api.themoviedb.org/3"
    """Root of the TMDb v3 API."""
    allow_unencrypted: bool = False
    """Whether the credential may be sent by http to another machine, where others on the network
    can read it."""
    requests_per_second: Annotated[float, Field(gt=0, le=1_000_000)] = 40.0
    """Pace of requests; TMDb documents a ceiling around 40."""
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 32
    """Largest number of simultaneous requests."""
    timeout_s: Annotated[float, Field(gt=0, le=3_600)] = 20.0
    """Longest time until an answer is complete, body included."""
    max_attempts: Annotated[int, Field(ge=1, le=1_000)] = 6
    """Tries for one record before it is recorded as failed."""
    give_up_after_s: Annotated[float, Field(gt=0, le=1e9)] = 120.0
    """A crawl ends when no request has succeeded for this long, or TMDb asks for a longer pause."""
    find_by_imdb_id: bool = True
    """Look a movie up by its IMDb id where its TMDb id is absent or unknown to TMDb."""
    max_age_days: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 180.0
    """Records older than this are fetched again, never with ``inf``; TMDb's terms allow six
    months."""
    part_size: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Largest number of records that are held in memory before they are written."""
    part_interval_s: Annotated[float, Field(gt=0, le=1e9)] = 10.0
    """Longest time between writes, however few records wait: a crash loses no more than this."""

    @model_validator(mode="after")
    def _the_credential_stays_secret(self) -> Self:
        scheme, host = _scheme_and_host("base_url", self.base_url)
        if scheme == "http" and not _is_this_machine(host) and not self.allow_unencrypted:
            found = shortened(without_secrets(repr(self.base_url)))
            raise ValueError(
                f"base_url = {found} is not encrypted, so others on the network could "
                "read your token; use https, or set allow_unencrypted = true for a test server"
            )
        return self


def _scheme_and_host(name: str, url: str) -> tuple[str, str]:
    """Of the URL in the setting ``name``.

    Raises:
        ValueError: if it is not an http or https URL.
    """
    found = shortened(without_secrets(repr(url)))
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_valid = parts.scheme in ("http", "https") and parts.port != 0 and _is_host(host)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError(f"{name} = {found} is not a URL that begins with https:// or http://")
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"{name} = {found} holds a user's name or password; leave them out")
    return parts.scheme, host


def _is_host(host: str) -> bool:
    """Whether a machine can have this name or address."""
    if ":" in host:
        return ip_address(host).version == 6
    return bool(_HOST.fullmatch(host.encode("idna").decode()))


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class IngestConfig(Section):
    """What the ingester reads of a configuration."""

    storage: UsablePath = "./artifacts"
    data: DataConfig = DataConfig()
    tmdb: TmdbConfig = TmdbConfig()
