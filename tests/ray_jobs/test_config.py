from __future__ import annotations

from pathlib import Path

import pytest

from foundation.errors import ConfigError
from ray_jobs.cli import load_config
from ray_jobs.config import JobConfig, with_parameters

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


FRAGMENTS = {"datasets/ml-100k", "datasets/ml-latest-small", "protocols/fixed"}
"""Configurations that are only extended by others."""
SHIPPED = sorted(
    path.relative_to(CONFIGS).with_suffix("").as_posix() for path in CONFIGS.rglob("*.toml")
)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configurations_are_valid_and_named_after_their_file(name: str) -> None:
    config = load_config([str(CONFIGS / f"{name}.toml")], [])

    assert config.name == ("default" if name in FRAGMENTS else Path(name).name)


def test_the_default_weighs_the_loss_and_predicts_stars() -> None:
    assert JobConfig().time_decay.apply_to == "loss"


def test_the_original_configuration_is_that_of_the_original_work() -> None:
    config = load_config([str(CONFIGS / "protocols" / "original.toml")], [])

    assert config.time_decay.apply_to == "target"
    assert config.time_decay.rate_per_day == 0.001
    assert (config.split.kind, config.split.test, config.split.seed) == ("random", 0.2, 42)
    assert config.model.inputs == ("user", "movie", "genres", "decade", "numeric")
    assert (config.model.embedding_dim, config.model.hidden_dims) == (8, (128, 64))
    assert (config.train.batch_size, config.train.epochs) == (64, 30)
    assert (config.train.learning_rate, config.train.patience) == (1e-3, 0)
    assert config.compare.losses == ("mse", "l1", "smooth_l1")


def test_a_set_option_wins_over_the_file() -> None:
    config = load_config(
        [str(CONFIGS / "quickstart.toml")], ["train.epochs=7", "model.hidden_dims=[3, 2]"]
    )

    assert config.train.epochs == 7
    assert config.model.hidden_dims == (3, 2)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("train.epoch=3", ["train.epoch", "Did you mean 'epochs'?", "embedding_l2, epochs"]),
        ("trian.epochs=3", ["unknown key 'trian'", "Did you mean 'train'?"]),
        ("train.epochs=0", ["train.epochs = 0", "greater than or equal to 1"]),
        ("train.loss=huber", ["'huber'", "'mse', 'l1', 'smooth_l1'"]),
        ("compare.losses=['l1', 'nll']", ["needs model.head"]),
        ("model.inputs=['user','user']", ["names an input twice"]),
        ("split.test=0.95", ["must leave rows to train on"]),
        ("name=../elsewhere", ["name = '../elsewhere'"]),
        ("name=2024", ["name = 2024", "--set 'name=\"2024\"'"]),
        ("data.path=true", ["--set 'data.path=\"true\"'"]),
        ("data.path=2024-01-02", ["--set 'data.path=\"2024-01-02\"'"]),
        ("data.source=folder", ["needs data.path"]),
        ("storage=", ["must name a folder or a URI"]),
        ("train.epochs", ["section.key=value"]),
        ("name.first=x", ["'name' is a value"]),
        ("compare.seeds=[-1]", ["compare.seeds.0 = -1"]),
        ("compare.seeds=[3, 1, 3]", ["compare.seeds", "has 3 more than once"]),
        ("tune.seed=-1", ["tune.seed = -1"]),
        ("scaling.num_workers=-1", ["scaling.num_workers = -1", 'such as "1-8"']),
        ("scaling.num_workers=8-1", ["scaling.num_workers = '8-1'", 'such as "1-8"']),
        ("scaling.num_workers=0-8", ["begins at 1 or more"]),
        ("tune.space={}", ["names nothing to search"]),
        ("split.validation=0", ["tune.num_trials > 0", "tune.num_trials = 0"]),
        ("split.kind=files", ["belong together"]),
        ("split.files.train=['u1.base']", ["split.files.test"]),
        ("tune={also_on_cpus=true, executor='isolated'}", ['needs executor = "persistent"']),
        ("storage=s3://key:pass@bucket/x", ["storage = 's3://***@bucket/x'", "holds a secret"]),
        ("tune.mlflow_uri=http://me:pass@host:5000", ["mlflow_uri = 'http://***@host:5000'"]),
        ("compare.trials_per_loss=-1", ["compare.trials_per_loss = -1"]),
    ],
)
def test_a_wrong_setting_is_told_with_what_was_found_and_expected(
    override: str, told: list[str]
) -> None:
    overrides = ["name=x", override] if override.startswith("name.") else [override]
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)

    for part in told:
        assert part in str(caught.value)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "smallest", "largest"), [("0", 0, 0), ("3", 3, 3), ("1-8", 1, 8), ("2-2", 2, 2)]
)
def test_workers_are_a_number_or_a_range(value: str, smallest: int, largest: int) -> None:
    scaling = load_config([], [f"scaling.num_workers={value}"]).scaling
    assert (scaling.min_workers, scaling.max_workers) == (smallest, largest)
    assert scaling.world_size == max(1, largest)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["blend.members=['boosting']", "split.validation=0"], "blend.members are weighted on val"),
        (["blend.members=['boosting']", "time_decay.apply_to=target"], "blend.members predict sta"),
        (["blend.members=['boosting', 'boosting']"], "names a member twice: boosting, boosting"),
        (["blend.members=['global-mean']"], "'boosting-with-times' or 'residual-boosting'"),
        (["blend.members=['boosting']", "task=choice"], 'but task = "choice" trains none'),
        (
            [
                "blend.members=['boosting']",
                "tune.num_trials=2",
                "tune.space={kind={choices=[{}, {'time_decay.apply_to'='target'}]}}",
            ],
            "tune.space may choose time_decay.apply_to",
        ),
        (["compare.blends={b = ['x']}"], "compare.blends.b"),
        (["compare.blends={b = ['x', 'x']}"], "blends.b names a member twice: x; x"),
        (["compare.differences=[['x', 'x']]"], "differences names 'x' twice in a pair"),
        (
            ["compare.differences=[['x', 'y']]", "compare.against=['x']"],
            "are two ways to name what",
        ),
        (
            ["cross_validate.split_seeds=[1, 2]", "split.kind=global-time"],
            "split_seeds draws random splits, but split.kind",
        ),
        (["compare.blends={b = ['x', 'y']}", "split.validation=0"], "compare.blends are weighted"),
        (
            [
                "blend.members=['residual-boosting']",
                "model.history.encoders=['gaussian-process']",
                "model.history.causal=true",
            ],
            "residual-boosting learns the errors of filling in ratings, but with model.history.cau",
        ),
        (
            ["compare.residual_boosting={b = 'x'}", "split.validation=0"],
            "compare.residual_boosting chooses settings on validation rows",
        ),
    ],
)
def test_blends_that_cannot_be_are_refused(settings: list[str], told: str) -> None:
    quiet = ["tune.num_trials=0", "tune.choice.num_trials=0"]
    with pytest.raises(ConfigError, match=told):
        load_config([], [*quiet, *settings])


def test_two_metrics_of_rankings_contradict_each_other() -> None:
    both = ["tune.metric=ndcg@10", "tune.choice.metric=recall@20"]
    with pytest.raises(ConfigError, match=r"tune.choice.metric = 'recall@20' contradict each"):
        load_config([], both)
    assert load_config([], both[:1]).tune.choice.metric == "ndcg@10"


@pytest.mark.parametrize(
    ("dimension", "told"),
    [
        ("'train.learning_rat' = {low = 1.0, high = 2.0}", "learning_rat"),
        ("'train.epochs' = {low = -3, high = 5, integer = true}", "greater than or equal to 1"),
        ("'model.dropout' = {low = 0.1}", "either choices"),
        ("'model.dropout' = {low = 0.5, high = 0.1}", "must be below"),
        (
            "'model.dropout' = {choices = [0.1], low = 0.2}",
            "either choices .* or both low and high",
        ),
        ("'model.dropout' = {choices = [0.1, 0.2], log = true}", "log and integer are for a range"),
        ("'model.dropout' = {low = 0.1, high = 0.4, integer = true}", "needs whole numbers"),
        ("'model.dropout' = {low = 0.0, high = 0.1, log = true}", "needs low above 0"),
        ("'split.seed' = {choices = [1, 2]}", "split"),
        ("'train.lr' = {low = 1.0, high = 2.0}", "tune.space names 'train.lr': unknown key"),
        (
            "train.loss = {choices = ['l1']}",
            r"""'tune.space.train.loss'.*"train.loss" = ... in \[""",
        ),
        ("train = {loss = {choices = ['l1']}}", 'tune.space={"train.loss" = ...}'),
        ("'train.loss' = {choice = ['l1']}", "Did you mean 'choices'.*: choices, high, integer"),
        ("'time_decay.rate_per_day' = {low = 0.0, high = 0.1}", "when the data are prepared"),
        (
            "kind = {choices = [{'time_decay.rate_per_day' = 0.1}]}",
            "time_decay.rate_per_day cannot be searched",
        ),
        (
            "'train.loss' = {choices = ['mse', 'nll']}\n"
            "'model.head' = {choices = ['regression', 'ordinal']}",
            r'needs model.head = "ordinal"\. A choice that is a table .* "train.loss" = "nll", ',
        ),
        ("kind = {choices = [{}, {'train.loss' = 'nll'}]}", "names 'kind': .* needs model.head"),
        ("kind = {choices = [{'train.los' = 'l1'}]}", "'train.los'. Did you mean 'loss'"),
        ("kind = {choices = ['a', {}]}", "names 'kind': unknown key 'kind'"),
        (
            "kind = {choices = [{train.loss = 'l1'}]}",
            r'a table names settings with quotes around them: \{ "train.loss" = ',
        ),
        (
            "a = {choices = [{'train.loss' = 'l1'}]}\nb = {choices = [{'train.loss' = 'mse'}, {}]}",
            "'a' and 'b' both set train.loss",
        ),
    ],
)
def test_a_search_space_that_no_trial_could_use_is_refused(
    dimension: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "job.toml"
    file.write_text(f"[tune.space]\n{dimension}\n")

    with pytest.raises(ConfigError, match=told):
        load_config([str(file)], [])


def test_a_rule_about_many_settings_is_told_without_all_of_them() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([str(CONFIGS / "protocols" / "family.toml")], ["split.validation=0"])

    assert "split.validation is 0: set tune.num_trials = 0" in str(caught.value)
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigError, match=r"  tune: also_on_cpus = true needs"):
        load_config([], ["tune.also_on_cpus=true", "tune.executor=isolated"])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["tune.num_trials=0", "split.validation=0"], "chooses on validation rows"),
        (["tune.space={'train.loss' = {choices = ['l1']}}"], "nothing to search beside the loss"),
        (["tune.space={kind = {choices = [{'train.loss' = 'l1'}]}}"], "'kind' set train.loss"),
    ],
)
def test_a_search_for_each_loss_needs_something_to_choose(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=rf"compare.trials_per_loss > 0.* {told}"):
        load_config([], ["compare.trials_per_loss=3", *overrides])


def test_the_search_of_one_loss_is_the_same_but_for_the_loss_and_its_budget() -> None:
    config = load_config([], ["compare.trials_per_loss=3", "tune.seed=7"])

    of_loss = config.of_loss("l1")

    assert of_loss.train == config.train.model_copy(update={"loss": "l1"})
    assert (of_loss.tune.num_trials, of_loss.tune.seed) == (3, 7)
    assert of_loss.tune.space == {
        key: value for key, value in config.tune.space.items() if key != "train.loss"
    }
    assert of_loss.model == config.model


def test_each_loss_of_the_comparison_must_go_with_whatever_the_search_chooses() -> None:
    both = "tune.space={'model.head' = {choices = ['regression', 'ordinal']}}"
    overrides = ["model.head=ordinal", "compare.losses=['mse', 'nll']", both]
    with pytest.raises(ConfigError) as caught:
        load_config([], overrides)

    told = (
        """compare.losses names 'nll', and the search may choose {"model.head": "regression"}: """
    )
    assert told + 'train.loss = "nll" needs' in str(caught.value)
    # Without a search, or where each loss has its own, nothing is chosen for another loss.
    load_config([], [*overrides, "tune.num_trials=0"])
    load_config([], [*overrides, "compare.trials_per_loss=2"])


def test_trial_parameters_change_just_what_they_name() -> None:
    base = JobConfig().experiment

    changed = with_parameters(base, {"model.hidden_dims": [5], "train.loss": "l1"})

    assert changed.model.hidden_dims == (5,)
    assert changed.train.loss == "l1"
    assert changed.model_copy(update={"model": base.model, "train": base.train}) == base


def test_a_missing_or_broken_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config([str(tmp_path / "absent.toml")], [])

    broken = tmp_path / "broken.toml"
    broken.write_text("[train\n")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_config([str(broken)], [])
