"""The report shows the terms of the data that the run used, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from foundation.storage import Storage
from ingest.manifest import TMDB_ATTRIBUTION
from ingest.raw_data import RawData
from ingest.sources.base import source_class
from ingest.sources.movielens import MOVIELENS_CITATION
from ray_jobs.report.sections.origin import licences_section

OF_THE_PROGRAM = "The program that made this report is licensed under Apache 2.0."


@pytest.mark.parametrize("with_tmdb", [False, True])
@pytest.mark.parametrize("name", ["folder", "ml-1m", "netflix-prize", "synthetic"])
def test_licence_and_attribution_are_those_of_the_source(
    name: str, with_tmdb: bool, tmp_path: Path
) -> None:
    kind = source_class(name)
    attribution = ((kind.citation,) if kind.citation else ()) + (
        (TMDB_ATTRIBUTION,) if with_tmdb else ()
    )
    notices = ("a warning", *attribution)
    raw = RawData(
        Storage.at(tmp_path), name, False, "f", 9, 2, 3, {}, notices, attribution, kind.licence
    )

    shown = [block.markdown("plots") for block in licences_section(raw).blocks]

    assert shown == [kind.licence, *attribution, OF_THE_PROGRAM]
    of_movielens = any("GroupLens" in text or text == MOVIELENS_CITATION for text in shown)
    assert of_movielens == (name == "ml-1m")
