"""How much random input is tried: the same in every run of `make test`, other in `make fuzz`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

COMMON = settings(
    deadline=None,
    # Fixtures of these tests are read, and not changed.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    database=None,
)
settings.register_profile("test", COMMON, derandomize=True, max_examples=150)
settings.register_profile("fuzz", COMMON, max_examples=2_000)
settings.load_profile(os.environ.get("FUZZ_PROFILE", "test"))
