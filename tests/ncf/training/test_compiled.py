"""Compiled steps, single steps and the plain loop of the benchmarks give the same results."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dev import original_loop
from ncf.config import ExperimentConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.data.batches import Batch, RatingSource
from ncf.data.preprocessor import Preprocessor
from ncf.data.streaming import Streamed
from ncf.models.conditioned import ConditionedModel
from ncf.models.ncf import NCF
from ncf.models.targets import Objective
from ncf.training import compiled
from ncf.training.compiled import cache_folder, obstacle
from ncf.training.loop import fit
from ncf.training.state import FitResult
from ncf.training.trainer import build
from tests.ncf.prepared import write_prepared

# What torch imports to compile uses what it deprecates.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning"),
    pytest.mark.system,
]
NEEDS_COMPILER = pytest.mark.skipif(
    compiled._missing_tool() is not None, reason="there is no C++ compiler here"
)


def experiment(model: dict[str, Any], **train: Any) -> ExperimentConfig:
    settings = {"epochs": 2, "batch_size": 64, "patience": 0, **train}
    return ExperimentConfig(
        model=ModelConfig(**model),
        train=TrainConfig.model_validate(settings),
        time_decay=TimeDecayConfig(apply_to="loss"),
    )


def trained(
    config: ExperimentConfig, preprocessor: Preprocessor, rows: RatingSource, compile_: str
) -> tuple[ConditionedModel, FitResult]:
    train = config.train.model_copy(update={"compile": compile_})
    model = build(config, preprocessor, rows)
    return model, fit(model, rows, None, Objective(train, config.time_decay, preprocessor))


def losses(result: FitResult) -> list[float]:
    return [epoch.train_loss for epoch in result.epochs]


ORIGINAL = {
    "embedding_dim": 8,
    "embedding_std": 1.0,
    "hidden_dims": (128, 64),
    "dropout": 0.0,
}


def reference_losses(
    config: ExperimentConfig, preprocessor: Preprocessor, rows: Batch
) -> list[float]:
    """Mean loss of two epochs, in the plain loop."""
    model = original_loop.ReferenceNCF()
    model.start_like(build(config, preprocessor, rows).network)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.train.learning_rate)
    generator = torch.Generator().manual_seed(config.train.seed)
    batches = original_loop.loader(original_loop.dataset_of(rows, preprocessor), generator)
    sizes = [min(64, len(rows) - start) for start in range(0, len(rows), 64)]
    means = []
    for _ in range(2):
        of_batch = original_loop.train_epoch(model, batches, optimizer, nn.MSELoss())
        means.append(sum(a * b for a, b in zip(of_batch, sizes, strict=True)) / len(rows))
    return means


@pytest.mark.parametrize("compile_", ["off", pytest.param("on", marks=NEEDS_COMPILER)])
def test_the_loss_curve_is_that_of_the_plain_loop(
    compile_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "UNROLLED", 1)
    # 47 batches and a part of one, which is not compiled.
    preprocessor, rows = original_loop.synthetic(3010)
    config = experiment(ORIGINAL, learning_rate=1e-3, schedule="constant", embedding_l2=0.0)
    _, result = trained(config, preprocessor, rows, compile_)
    assert losses(result) == pytest.approx(reference_losses(config, preprocessor, rows), rel=1e-4)


EVERYTHING: dict[str, Any] = {
    "inputs": ("user", "movie", "genres", "decade", "numeric", "time"),
    "embedding_dim": 4,
    "hidden_dims": (8, 6),
    "normalization": "layer",
    "dropout": 0.3,
    "biases": ("user", "movie"),
    "gmf_dim": 4,
    "head": "ordinal",
}


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("model", "train"),
    [
        (EVERYTHING, {"loss": "nll", "schedule": "one-cycle", "weight_decay": 0.1}),
        ({"embedding_dim": 4, "hidden_dims": (8,)}, {"loss": "smooth_l1", "schedule": "plateau"}),
    ],
)
def test_compiled_steps_equal_single_steps(
    model: dict[str, Any], train: dict[str, Any], world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if model is EVERYTHING:
        monkeypatch.setattr(compiled, "UNROLLED", 1)  # half the time to compile
    config = experiment(model, **train)
    rows = world.train[:1000]
    one_by_one, expected = trained(config, world.preprocessor, rows, "off")
    compiled_, found = trained(config, world.preprocessor, rows, "on")
    assert losses(found) == pytest.approx(losses(expected), rel=1e-4)
    for epoch, other in zip(found.epochs, expected.epochs, strict=True):
        assert epoch.learning_rate == other.learning_rate
    weights = one_by_one.network.state_dict()
    for name, value in compiled_.network.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=1e-3, atol=1e-4, msg=name)


@NEEDS_COMPILER
def test_two_compiled_models_do_not_mix(world: Any) -> None:
    """Of one shape, with other weights, losses and penalties."""
    first = experiment({"embedding_dim": 4, "hidden_dims": (8,), "dropout": 0.0}, loss="l1")
    second = experiment(
        {"embedding_dim": 4, "hidden_dims": (8,), "dropout": 0.0}, loss="mse", seed=1,
        embedding_l2=500.0,
    )  # fmt: skip
    rows = world.train[:600]
    for config in (first, second):
        found, expected = (
            trained(config, world.preprocessor, rows, mode)[1] for mode in ("on", "off")
        )
        assert losses(found) == pytest.approx(losses(expected), rel=1e-4)


@NEEDS_COMPILER
def test_a_model_with_compiled_steps_can_be_copied_and_loaded(world: Any) -> None:
    config = experiment({"embedding_dim": 4, "hidden_dims": (8,), "dropout": 0.0}, loss="l1")
    model, result = trained(config, world.preprocessor, world.train[:600], "on")
    other = copy.deepcopy(model.network)
    other.load_state_dict({name: value * 0 for name, value in result.last.items()})
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, result.last[name]), name


@NEEDS_COMPILER
def test_compiled_steps_take_rows_that_are_streamed(world: Any, tmp_path: Path) -> None:
    """Three windows, whose boundaries do not affect compiled steps."""
    prepared = write_prepared(tmp_path, {"train": world.train[:600]}, world.preprocessor)
    rows = Streamed(prepared, "train", torch.device("cpu"), window=200)
    config = experiment({"embedding_dim": 4, "hidden_dims": (8,), "dropout": 0.0}, loss="l1")
    found, expected = (trained(config, world.preprocessor, rows, mode)[1] for mode in ("on", "off"))
    assert losses(found) == pytest.approx(losses(expected), rel=1e-4)


# -- where it cannot be ----------------------------------------------------------------------------


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage() for record in caplog.records if record.name == "ncf.training.trainer"
    ]


def test_without_a_compiler_training_runs_with_a_warning(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Where torch looks for one.
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    config = experiment({"embedding_dim": 4, "hidden_dims": (8,)})
    expected = losses(trained(config, world.preprocessor, world.train[:600], "off")[1])
    assert not refusals(caplog)
    # Once is enough, whatever the number of models.
    for _ in range(2):
        assert losses(trained(config, world.preprocessor, world.train[:600], "on")[1]) == expected
    assert refusals(caplog) == [
        "training without compiled steps: there is no C++ compiler, such as g++"
    ]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"history": {"encoders": ("gaussian-process",)}}, "other ratings"),
        ({"normalization": "batch"}, "batch normalisation"),
    ],
)
def test_models_that_are_not_compiled(settings: dict[str, Any], reason: str, world: Any) -> None:
    config = experiment(settings)
    assert reason in str(obstacle(build(config, world.preprocessor, world.train).network))


def test_auto_does_not_compile_short_runs(
    world: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recommender: list[NCF] = []

    def never(network: NCF) -> str:
        recommender.append(network)
        return "not here"

    monkeypatch.setattr("ncf.training.trainer.obstacle", never)
    monkeypatch.setattr("ncf.training.trainer.WORTHWHILE_STEPS", 20)
    short = experiment({"hidden_dims": (8,)}, epochs=19, stop_after=1, batch_size=300)
    trained(short, world.preprocessor, world.train[:300], "auto")
    assert not recommender
    long = experiment({"hidden_dims": (8,)}, epochs=10, batch_size=300)
    trained(long, world.preprocessor, world.train[:600], "auto")
    assert len(recommender) == 1
    # There is no warning unless the setting is "on".
    assert not refusals(caplog)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TORCHINDUCTOR_CACHE_DIR": "a", "XDG_CACHE_HOME": "b"}, "a"),
        ({"XDG_CACHE_HOME": "b"}, "b/ncf/torchinductor"),
        ({}, "home/.cache/ncf/torchinductor"),
    ],
)
def test_the_cache_folder_of_compiled_steps(
    environ: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    assert cache_folder(environ) == expected


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("compiled")
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
        # Two steps take half as long to compile as four.
        patch.setattr(compiled, "UNROLLED", 2)
        # Else torch compiles programs to learn which instructions the compiler knows.
        patch.setattr("torch._inductor.config.cpp.vec_isa_ok", True)
        yield
