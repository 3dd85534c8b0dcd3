"""Several published splits, compared as a user compares them."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from ray_jobs.config import JobConfig
from ray_jobs.stages.cross_validation import fold_config
from tests.support import Done, run_module

pytestmark = pytest.mark.ray(seconds=50)

SETTINGS = (
    "name=folds",
    "data.source=folder",
    "tmdb.enabled=false",
    "train.epochs=2",
    "train.batch_size=256",
    "tune.num_trials=0",
    'compare.losses=["mse"]',
    "compare.seeds=[0]",
    'compare.baselines=["global-mean"]',
    "compare.resamples=100",
    "scaling.num_workers=0",
)


@pytest.fixture
def ratings(tmp_path: Path) -> np.ndarray:
    """A folder with 600 ratings in a user's own format, and two splits of them."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation(40 * 50)[:600]
    stars = rng.integers(2, 11, 600) / 2
    lines = [
        (p // 50 + 1, p % 50 + 1, s, 10**9 + n)
        for n, (p, s) in enumerate(zip(pairs, stars, strict=True))
    ]
    header = ("userId", "movieId", "rating", "timestamp")
    write(tmp_path / "ratings.csv", header, lines)
    movies = [(m, f"Film {m} (1990)", "Drama") for m in range(1, 51)]
    write(tmp_path / "movies.csv", ("movieId", "title", "genres"), movies)
    for fold, chosen in (("a", range(0, 600, 5)), ("b", range(1, 600, 4))):
        test = set(chosen)
        write(tmp_path / f"{fold}.test", header, [lines[n] for n in chosen])
        rest = [line for n, line in enumerate(lines) if n not in test]
        write(tmp_path / f"{fold}.train", header, rest)
    return stars


def write(file: Path, header: tuple[str, ...], lines: Sequence[tuple[object, ...]]) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *lines])


def test_every_fold_is_a_run_and_the_table_holds_them_all(
    tmp_path: Path, ratings: np.ndarray, run_joined: Callable[..., Done]
) -> None:
    files = "{" + ", ".join(f'{f}={{train=["{f}.train"], test=["{f}.test"]}}' for f in "ab") + "}"
    storage = tmp_path / "out"
    done = run_joined(
        "ray_jobs.cross_validate",
        (
            *SETTINGS,
            f"data.path={tmp_path}",
            f"storage={storage}",
            f"cross_validate.folds={files}",
        ),
    )

    assert done.code == 0, done.out + done.err
    found = json.loads((storage / "runs" / "folds" / "folds.json").read_text())
    assert found["folds"] == ["a", "b"]
    mean, model = found["models"]
    assert (mean["model"], model["model"]) == ("global mean", "NCF, mse")
    number = np.arange(600)
    for fold, test in enumerate((number % 5 == 0, number % 4 == 1)):
        name = found["folds"][fold]
        own = json.loads((storage / "runs" / f"folds.{name}" / "comparison.json").read_text())
        assert own["num_test"] == test.sum()
        assert model["rmse"][fold] == own["entries"][1]["test"][0]["rmse"]
        # The mean of training rows, of which a tenth went to validation, is about that of the rest.
        expected = np.sqrt(np.mean((ratings[test] - ratings[~test].mean()) ** 2))
        assert mean["rmse"][fold] == pytest.approx(expected, abs=0.02)
    text = (storage / "runs" / "folds" / "report.md").read_text()
    values = model["mae"]
    assert f"| {values[0]:.4f} | {values[1]:.4f} | {np.mean(values):.4f} ± " in text
    assert "Traceback" not in done.err
    assert found["missing"] == {}
    pooled = found["pooled"]
    # 120 and 150 rows, of which those with the numbers 5, 25, ... are in both.
    assert (pooled["num_rows"], pooled["num_repeated"]) == (270, 30)
    assert (pooled["baseline"], len(pooled["differences"])) == ("global mean", 2)
    of_model, of_mean = (errors_of(storage, e["model"], ratings) for e in (model, mean))
    for difference, of in zip(
        pooled["differences"], (root_mean_square, mean_absolute), strict=True
    ):
        assert (difference["first"], difference["second"]) == ("NCF, mse", "global mean")
        assert difference["value"] == pytest.approx(of(of_model) - of(of_mean), rel=1e-4)
    text = (storage / "runs" / "folds" / "report.md").read_text()
    assert "All 270 test rows of all folds together" in text
    assert "Of them 30 are test rows of another fold too" in text
    assert "for all 2 comparisons at once" in text
    assert (storage / "runs" / "folds" / "plots" / "differences.png").read_bytes()[1:4] == b"PNG"
    assert "over all folds" in (storage / "runs" / "folds" / "report.html").read_text()


def test_fixed_configurations_are_compared_on_every_fold(
    tmp_path: Path, ratings: np.ndarray, run_joined: Callable[..., Done]
) -> None:
    files = "{" + ", ".join(f'{f}={{train=["{f}.train"], test=["{f}.test"]}}' for f in "ab") + "}"
    storage = tmp_path / "out"
    other = "features.numeric=['train_ratings']"
    configurations = f'{{small={{model.embedding_dim=4}}, "no year"={{{other}}}}}'

    done = run_joined(
        "ray_jobs.cross_validate",
        (
            *SETTINGS,
            f"data.path={tmp_path}",
            f"storage={storage}",
            f"cross_validate.folds={files}",
            f"compare.configurations={configurations}",
            "scaling.num_workers=1",  # of both folds side by side
            "compare.against=['small']",
        ),
    )

    assert done.code == 0, done.out + done.err
    found = json.loads((storage / "runs" / "folds" / "folds.json").read_text())
    assert [model["model"] for model in found["models"]] == ["global mean", "small", "no year"]
    assert found["pooled"]["against"] == ["small"]
    errors = {name: errors_of(storage, name, ratings) for name in ("global mean", "small")}
    difference = found["pooled"]["differences"][0]
    assert (difference["first"], difference["second"]) == ("global mean", "small")
    of_mean, of_model = (root_mean_square(errors[name]) for name in ("global mean", "small"))
    assert difference["value"] == pytest.approx(of_mean - of_model, rel=1e-4)
    text = (storage / "runs" / "folds" / "report.md").read_text()
    assert "All others are compared with small." in text
    assert f"| no year | {found['models'][2]['rmse'][0]:.4f} |" in text


def test_random_splits_are_folds_too(
    tmp_path: Path, ratings: np.ndarray, run_joined: Callable[..., Done]
) -> None:
    storage = tmp_path / "out"
    done = run_joined(
        "ray_jobs.compare",
        (
            *SETTINGS,
            f"data.path={tmp_path}",
            f"storage={storage}",
            "split.seed=7",
            "compare.baselines=['damped-bias']",
            "compare.differences=[['NCF, mse', 'damped bias']]",
        ),
        "--splits",
        "2",
    )

    assert done.code == 0, done.out + done.err
    found = json.loads((storage / "runs" / "folds" / "folds.json").read_text())
    assert found["folds"] == ["seed-7", "seed-8"]
    seeds = []
    tested = []
    for fold in found["folds"]:
        run = storage / "runs" / f"folds.{fold}"
        seeds.append(tomllib.loads((run / "config.toml").read_text())["split"]["seed"])
        entries = json.loads((run / "comparison.json").read_text())["entries"]
        kept = pq.read_table(run / "predictions" / entries[-1]["predictions"][0])
        tested.append(set(kept["row"].to_pylist()))
    assert seeds == [7, 8]
    assert [len(rows) for rows in tested] == [120, 120]
    assert tested[0] != tested[1]
    (over_folds,) = found["pooled"]["over_folds"]
    _, bias, model = found["models"]
    expected = [a - b for a, b in zip(model["rmse"], bias["rmse"], strict=True)]
    assert over_folds["values"] == pytest.approx(expected)
    assert len(found["pooled"]["differences"]) == 2  # RMSE and MAE of the one pair
    text = (storage / "runs" / "folds" / "report.md").read_text()
    assert "Differences of the RMSE, fold by fold" in text
    assert f"{over_folds['low']:+.4f} to {over_folds['high']:+.4f}" in text


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        (
            ("split.kind=per-user-time",),
            ("--splits", "3"),
            "--splits draws random splits, but spli",
        ),
        ((), ("--splits", "1"), "1 is not in the range"),
        (("task=choice",), ("--splits", "2"), 'several splits, but task = "choice" has none'),
        (("cross_validate.split_seeds=[1, 1]",), (), "has a seed twice"),
        (
            (
                "cross_validate.split_seeds=[1]",
                "cross_validate.folds={a={train=['x'], test=['y']}}",
            ),
            (),
            "split_seeds and folds are two ways to name splits",
        ),
    ],
)
def test_splits_that_cannot_be_are_refused(
    settings: tuple[str, ...], options: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    done = run_module("ray_jobs.compare", (f"storage={tmp_path}", *settings), *options)
    assert done.code == 2
    assert told in done.err
    assert "Traceback" not in done.err


def errors_of(storage: Path, name: str, ratings: np.ndarray) -> np.ndarray:
    """Prediction minus rating of all rows of both folds, from the kept predictions."""
    found = []
    for fold in "ab":
        run = storage / "runs" / f"folds.{fold}"
        entries = json.loads((run / "comparison.json").read_text())["entries"]
        (file,) = next(e["predictions"] for e in entries if e["name"] == name)
        kept = pq.read_table(run / "predictions" / file).to_pandas()
        found.append(kept["stars"].to_numpy() - ratings[kept["row"]])
    return np.concatenate(found)


def root_mean_square(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def mean_absolute(errors: np.ndarray) -> float:
    return float(np.abs(errors).mean())


def test_without_folds_it_is_said_what_is_missing(tmp_path: Path) -> None:
    done = run_module("ray_jobs.cross_validate", (f"storage={tmp_path}",))

    assert done.code == 2
    assert "cross_validate.folds names no fold" in done.err
    assert "Traceback" not in done.err


def test_a_comparison_without_test_rows_is_refused(tmp_path: Path) -> None:
    folds = "cross_validate.folds={a={train=['a.train'], test=['a.test']}}"
    settings = (f"storage={tmp_path}", folds, "compare.score_test=false")

    done = run_module("ray_jobs.cross_validate", settings)

    assert done.code == 2
    assert "the models of several splits are compared on their test rows" in done.err


def test_a_fold_keeps_every_other_setting() -> None:
    files = {"train": ["u1.base"], "test": ["u1.test"]}
    config = JobConfig.model_validate(
        {
            "name": "x",
            "split": {"validation": 0.05, "seed": 7},
            "cross_validate": {"folds": {"u1": files}},
            "train": {"epochs": 4},
            "compare": {"configurations": {"small": {"model": {"embedding_dim": 4}}}},
        }
    )

    found = fold_config(config, "u1")

    assert found.name == "x.u1"
    assert (found.split.kind, found.split.validation, found.split.seed) == ("files", 0.05, 7)
    assert found.split.files is not None
    assert found.split.files.test == ("u1.test",)
    assert found.train == config.train
    assert found.compare == config.compare
