from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from ray_jobs.report.plots import (
    Coordinate,
    bars,
    calibration,
    counts,
    dots,
    intervals,
    learning_curves,
    parallel_coordinates,
    residuals,
    search_history,
)


def pixels(png: bytes) -> npt.NDArray[np.float32]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture: npt.NDArray[np.float32] = matplotlib.image.imread(io.BytesIO(png), format="png")
    return picture


def colours(png: bytes) -> set[tuple[int, ...]]:
    levels = np.round(255 * pixels(png)[..., :3]).astype(int).reshape(-1, 3)
    found, counts = np.unique(levels, axis=0, return_counts=True)
    return {tuple(colour) for colour, count in zip(found, counts, strict=True) if count > 150}


def test_every_name_has_a_colour_of_its_own() -> None:
    one = colours(learning_curves({"mse": [[1.0, 0.9, 0.8]]}, "RMSE"))
    two = colours(learning_curves({"mse": [[1.0, 0.9, 0.8]], "l1": [[1.1, 1.0, 0.9]]}, "RMSE"))
    assert len(two) > len(one) >= 3  # background, ink, curve


def test_runs_of_unequal_length_are_drawn() -> None:
    short = learning_curves({"mse": [[1.0, 0.9]]}, "RMSE")
    both = learning_curves({"mse": [[1.0, 0.9], [1.2, 1.0, 0.7]]}, "RMSE")
    assert pixels(short).shape == pixels(both).shape
    assert short != both


def test_more_entries_make_a_taller_picture() -> None:
    two = pixels(dots({"mean": (1.05, None), "ncf": (0.81, 0.01)}, "RMSE"))
    four = pixels(dots(dict.fromkeys("abcd", (0.9, None)), "RMSE"))
    assert four.shape[0] > two.shape[0]
    assert four.shape[1] == two.shape[1]


@pytest.mark.parametrize("errors", [[0.9], [0.9, 0.8, 0.95]])
def test_a_search_of_any_length_is_drawn(errors: list[float]) -> None:
    assert len(colours(search_history(errors, "RMSE"))) >= 3


def test_intervals_that_hold_zero_look_different() -> None:
    clear = colours(intervals({"a": (0.2, 0.1, 0.3), "b": (-0.2, -0.3, -0.1)}, "difference"))
    mixed = colours(intervals({"a": (0.2, 0.1, 0.3), "b": (-0.2, -0.3, 0.1)}, "difference"))
    assert len(mixed) > len(clear)


def test_a_model_of_one_height_has_a_calibration_plot_too() -> None:
    one = colours(calibration({"mean": [(3.5, 3.4)]}, "stars"))
    two = colours(calibration({"mean": [(3.5, 3.4)], "ncf": [(2.0, 2.5), (4.0, 3.9)]}, "stars"))
    assert len(two) > len(one)


BLUE = (11, 83, 148)


def blue(png: bytes) -> tuple[int, int]:
    """Pixels of the bars' colour, and their height in rows."""
    is_blue = (np.round(255 * pixels(png)[..., :3]) == BLUE).all(axis=-1)
    return int(is_blue.sum()), int(is_blue.any(axis=1).sum())


def test_columns_and_bars_have_the_area_of_their_numbers() -> None:
    even, _ = blue(counts({"stars": {"1": 100, "2": 100}}))
    half, _ = blue(counts({"stars": {"1": 100, "2": 50}}))
    assert half == pytest.approx(0.75 * even, rel=0.02)
    even, _ = blue(bars({"a": 0.5, "b": 0.5}, "share"))
    half, _ = blue(bars({"a": 0.5, "b": 0.25}, "share"))
    assert half == pytest.approx(0.75 * even, rel=0.02)


def test_residuals_go_both_ways_from_zero() -> None:
    mixed = residuals({"1": (0.5, 0.9), "5": (-0.5, 0.9)}, "rating", "stars")
    above = residuals({"1": (0.5, 0.9), "5": (0.5, 0.9)}, "rating", "stars")
    # The same scale holds 1.4 stars in the first, and 0.9 in the second.
    assert blue(mixed)[1] > blue(above)[1]


@pytest.mark.parametrize("number", [1, 12, 40])
def test_any_number_of_groups_is_drawn(number: int) -> None:
    labels = [str(1980 + year) for year in range(number)]
    columns = counts({"year": dict.fromkeys(labels, 7)})
    assert pixels(columns).shape == pixels(counts({"year": {"1980": 7}})).shape
    assert blue(residuals(dict.fromkeys(labels, (0.1, 0.9)), "year", "stars"))[0] > 0


def test_parallel_lines_show_which_is_best_and_which_are_faint() -> None:
    error = Coordinate("error", (0.0, 0.6, 1.0), {0.0: "0.8", 1.0: "0.9"})
    setting = Coordinate("size", (1.0, 0.0, 0.5), {0.0: "8", 0.5: "16", 1.0: "32"})
    solid = parallel_coordinates([error, setting], [False, False, False])
    dashed = parallel_coordinates([error, setting], [False, False, True])
    other = parallel_coordinates(
        [error, Coordinate("size", (0.0, 0.0, 0.5), setting.ticks)], [False] * 3
    )
    assert len({solid, dashed, other}) == 3
    assert pixels(solid).shape == pixels(dashed).shape
    assert (
        pixels(parallel_coordinates([error, setting, setting], [False] * 3)).shape[0]
        > (pixels(solid).shape[0])
    )
    orange = (180, 95, 6)
    for picture in (solid, dashed):
        assert orange in colours(picture)
