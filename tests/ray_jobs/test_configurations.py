"""The fixed configurations of a comparison, read from files and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from foundation.errors import ConfigError
from ray_jobs.cli import load_config
from ray_jobs.config import ComparedConfig, JobConfig
from ray_jobs.configurations import require_test_errors
from tests.support import ROOT

FILES = {
    "base/model.toml": """
        name = "model"
        [split]
        seed = 7
        [model]
        hidden_dims = [5]
        dropout = 0.0
        [tune]
        num_trials = 0
        """,
    "base/slow.toml": """
        extends = "model.toml"
        [train]
        epochs = 40
        """,
    "protocols/table.toml": """
        name = "table"
        [split]
        seed = 7
        [features]
        numeric = ["year"]
        [model]
        gmf_dim = 3
        [compare.configurations]
        "as it is" = {}
        "wide" = { model.hidden_dims = [9, 8] }
        "slow, with biases" = { extends = "../base/slow.toml", model.biases = ["movie"] }
        """,
}


@pytest.fixture
def table(tmp_path: Path) -> str:
    """A protocol, with the files that it extends."""
    for name, text in FILES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return str(tmp_path / "protocols" / "table.toml")


def configurations(table: str, *overrides: str) -> dict[str, ComparedConfig]:
    return load_config([table], overrides).compare.configurations


def test_a_configuration_is_its_files_with_what_the_table_changes(table: str) -> None:
    slow = configurations(table)["slow, with biases"]

    assert slow.train.epochs == 40
    assert (slow.model.hidden_dims, slow.model.dropout) == ((5,), 0.0)
    assert slow.model.biases == ("movie",)
    # A section of the files counts as a whole, so nothing of the comparison's model is left.
    assert slow.model.gmf_dim == 0
    # A section that no file has is that of the comparison.
    assert slow.features.numeric == ("year",)


def test_without_files_it_is_the_comparisons_own_configuration_changed(table: str) -> None:
    found = configurations(table)

    own = load_config([table], [])
    assert found["as it is"].experiment == own.experiment
    assert found["as it is"].features == own.features
    assert found["wide"].model == own.model.model_copy(update={"hidden_dims": (9, 8)})


def test_the_command_line_changes_the_comparison_and_single_configurations(table: str) -> None:
    found = configurations(table, "train.epochs=3", "compare.configurations.wide.train.epochs=2")

    assert [found[name].train.epochs for name in found] == [3, 2, 40]


def test_the_written_configuration_holds_all_of_it(table: str, tmp_path: Path) -> None:
    config = load_config([table], [])
    written = tmp_path / "elsewhere.toml"
    written.write_text(tomli_w.dumps(config.model_dump(mode="json", exclude_none=True)))

    assert load_config([str(written)], []) == config


def test_paths_on_the_command_line_are_relative_to_the_working_folder(
    table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(table).parents[1] / "base")

    found = configurations(table, 'compare.configurations={one={extends="slow.toml"}}')

    assert list(found) == ["one"]
    assert found["one"].train.epochs == 40


def test_files_on_other_rows_are_refused(table: str) -> None:
    protocol = Path(table)
    protocol.write_text(protocol.read_text().replace("seed = 7", "seed = 8"))

    told = r"slow, with biases: .*slow.toml sets split.seed = 7, .* has 8\..*same rows"
    with pytest.raises(ConfigError, match=told):
        load_config([table], [])


def test_the_command_line_changes_the_rows_of_all_configurations(table: str) -> None:
    config = load_config([table], ["split.seed=8", "data.source=ml-1m"])

    assert (config.split.seed, config.data.source) == (8, "ml-1m")
    assert len(config.compare.configurations) == 3


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("compare.configurations.wide.model.hiden_dims=[3]", "Did you mean 'hidden_dims'"),
        (
            "compare.configurations.wide.tune.num_trials=3",
            r"wide\.tune: .* may set model, train, t",
        ),
        ("compare.configurations.wide.data.source='folder'", r"wide\.data: .*outside of"),
        ("compare.configurations={a='x.toml'}", r"a = 'x.toml', expected a table with extends"),
        ("compare.configurations={a={extends='x.toml'}}", "a extends 'x.toml', but there is no"),
        ("compare.configurations={a={extends=3}}", "a: extends = 3, expected the path of a file"),
        ("compare.configurations={a={train.loss='nll'}}", r"a: train.loss = \"nll\" needs"),
        ("compare.configurations={'a b'={}, 'A-b'={}}", "'a b' and 'A-b' differ in case or"),
        ("compare.configurations={' a'={}}", "should match pattern"),
        ("compare.trials_per_loss=3", "trials_per_loss = 3 searches .* set trials_per_loss = 0"),
        ("split={seed=7, validation=0}", "score_test = false scores on validation rows, but"),
    ],
)
def test_what_cannot_be_compared_is_refused(table: str, override: str, told: str) -> None:
    overrides = [override, "tune.num_trials=0", "compare.score_test=false"]
    with pytest.raises(ConfigError, match=told):
        load_config([table], overrides)


def test_a_wrong_file_of_a_configuration_is_named(table: str) -> None:
    (Path(table).parents[1] / "base" / "slow.toml").write_text("[train]\nepoch = 4\n")

    with pytest.raises(ConfigError, match=r"slow\.toml is not a valid configuration:\n.*'epochs'"):
        load_config([table], [])


def test_a_missing_file_is_told_with_the_file_that_names_it(table: str) -> None:
    (Path(table).parents[1] / "base" / "slow.toml").unlink()

    with pytest.raises(ConfigError, match=r"table\.toml extends '../base/slow\.toml', but"):
        load_config([table], [])


def test_commands_that_score_test_rows_refuse_a_comparison_for_choosing() -> None:
    config = JobConfig.model_validate({"compare": {"score_test": False}})

    with pytest.raises(ConfigError, match=r"scores the test rows: why\. Choose settings with"):
        require_test_errors(config, "why")
    require_test_errors(JobConfig(), "why")


PROTOCOLS = sorted((ROOT / "configs" / "protocols").glob("*.toml"))


@pytest.mark.parametrize("path", PROTOCOLS, ids=lambda path: path.stem)
def test_the_models_of_the_published_tables_are_those_of_their_files(path: Path) -> None:
    """What the tables call by the same name is the same model in every protocol."""
    found = load_config([str(path)], []).compare.configurations
    for name, settings in found.items():
        if "decay" in path.stem:
            continue  # changes of whatever configuration is named before it
        history = settings.model.history
        assert ("gaussian-process" in history.encoders) == name.startswith("Gaussian process")
        assert history.use_times == ("times" in name) or not history.encoders
        assert settings.time_decay.apply_to == "none"
