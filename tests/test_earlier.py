"""Data sets as they were at earlier moments hold none of the rows that are tested with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import earlier
from ncf.config import SplitConfig
from ncf.data.splits import TEST, assign


@pytest.fixture
def release(tmp_path: Path) -> pd.DataFrame:
    """100 ratings on 25 days, four on each, so that the split's border falls among equal ones."""
    random = np.random.default_rng(0)
    ratings = pd.DataFrame(
        {
            "userId": random.integers(1, 9, 100),
            "movieId": np.arange(100),
            "rating": 3.0,
            "timestamp": random.permutation(100) // 4 * 86_400,
        }
    )
    ratings.to_csv(tmp_path / "ratings.csv", index=False)
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n")
    return ratings


@pytest.mark.parametrize(("share", "num_kept"), [(1.0, 80), (0.625, 50)])
def test_the_oldest_are_kept_and_no_test_row(
    release: pd.DataFrame, tmp_path: Path, share: float, num_kept: int
) -> None:
    assert earlier.write(tmp_path, tmp_path / "out", share) == num_kept
    kept = pd.read_csv(tmp_path / "out" / "ratings.csv")
    times = release["timestamp"].to_numpy()
    labels = assign(SplitConfig(kind="global-time"), release["userId"].to_numpy(), times)
    assert not set(kept["movieId"]) & set(release["movieId"][labels == TEST])
    assert sorted(kept["timestamp"]) == sorted(times)[:num_kept]
    assert (tmp_path / "out" / "movies.csv").exists()


def test_rows_as_old_as_the_first_tested_one_are_left_out(
    release: pd.DataFrame, tmp_path: Path
) -> None:
    late = release["timestamp"] >= release["timestamp"].sort_values().iloc[70]
    release.loc[late, "timestamp"] = 10**9  # more than a fifth of the same age: all are test rows
    release.to_csv(tmp_path / "ratings.csv", index=False)
    assert earlier.write(tmp_path, tmp_path / "out", 1.0) == (~late).sum()


@pytest.mark.parametrize("share", ["0", "1.25"])
def test_other_shares_are_refused(
    share: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["earlier.py", "in", "out", "--shares", share])
    with pytest.raises(SystemExit):
        earlier.main()
    assert "shares must be above 0 and at most 1" in capsys.readouterr().err
