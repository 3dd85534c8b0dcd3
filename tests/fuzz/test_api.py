"""Requests that the schema of the page's API allows, and some that it does not, by schemathesis."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

import schemathesis
from schemathesis import Case
from schemathesis.checks import not_a_server_error, positive_data_acceptance

from ray_jobs.web.about import describe
from ray_jobs.web.app import make_app
from tests.ray_jobs.made import CLOSED, kept, recommender

# The parameters of the test are made of the schema when it is collected, before any fixture.
_FOLDER = Path(tempfile.mkdtemp())
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
_WORKSPACE = kept(_FOLDER, CLOSED)
_MODEL = recommender(_WORKSPACE)
schema = schemathesis.openapi.from_asgi(
    "/openapi.json", make_app(_MODEL, describe(_WORKSPACE.run / "checkpoint", _MODEL))
)


@schema.parametrize()
def test_every_answer_is_one_of_the_schema(case: Case[Any]) -> None:
    # The schema knows neither the movies nor the scale of the ratings; 501 says that this
    # kind of model cannot do it.
    excluded = [positive_data_acceptance, not_a_server_error]
    answer = case.call_and_validate(excluded_checks=excluded)
    assert answer.status_code < 500 or answer.status_code == 501
