from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import numpy.typing as npt
import pytest

from ncf.plots import calibration, dots, intervals, learning_curves, search_history


def pixels(png: bytes) -> npt.NDArray[np.float32]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    picture: npt.NDArray[np.float32] = matplotlib.image.imread(io.BytesIO(png), format="png")
    return picture


def colours(png: bytes) -> set[tuple[int, ...]]:
    levels = np.round(255 * pixels(png)[..., :3]).astype(int).reshape(-1, 3)
    found, counts = np.unique(levels, axis=0, return_counts=True)
    return {tuple(colour) for colour, count in zip(found, counts, strict=True) if count > 40}


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
