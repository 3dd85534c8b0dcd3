"""Every command in the documents is run, or parsed by its program; every link leads somewhere.

Those that need a model that was trained are in ``tests/ray_jobs/test_docs_finished.py``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from ray.scripts.scripts import cli

from dev import arrows
from foundation.config import build, keys
from ingest import __main__ as ingest
from ingest.commands import Options, load_settings
from ray_jobs.__main__ import COMMANDS
from ray_jobs.__main__ import main as movie_ratings
from ray_jobs.cli import load_config
from ray_jobs.config import JobConfig
from ray_jobs.web.models import PredictionsRequest, RecommendationsRequest
from tests.documents import DOCUMENTS, blocks, commands, module_of, prose, spans
from tests.support import ROOT

RUN_ELSEWHERE = {
    "make run": "test_pipeline.py::test_every_stage_says_what_it_does",
    "ray_jobs.pipeline": "test_pipeline.py::test_every_stage_says_what_it_does",
    "ray_jobs.preprocess": "test_mains.py::test_more_workers_than_cpus_are_refused",
    "ray_jobs.tune": "test_interrupt.py::test_an_interrupted_stage_ends_with_130",
    "ray_jobs.compare": "test_interrupt.py::test_an_interrupted_stage_ends_with_130",
    "ray_jobs.train": "test_train_resume.py::test_killed_workers_and_a_killed_job",
    "ray_jobs.report": "test_pipeline.py::test_the_report_can_be_written_again",
    "ray_jobs.cross_validate": "test_cross_validate.py::test_every_fold_is_a_run_and_the_table",
    "ray_jobs.predict": "test_docs_finished.py::test_commands_that_use_a_model",
    "ray_jobs.recommend": "test_docs_finished.py::test_commands_that_use_a_model",
    "--new-user": "test_using.py::test_somebody_new_gets_what_the_ratings_say",
    "ray_jobs.serve": "web/test_page.py::test_the_page_is_served_until_ctrl_c",
    "ray_jobs.doctor": "test_docs_finished.py::test_commands_that_use_a_model",
    "ray start": "test_multi_node.py::test_the_pipeline_runs_as_a_submitted_job",
    "ray job submit": "test_multi_node.py::test_the_pipeline_runs_as_a_submitted_job",
}
"""What is only parsed here, and the test in tests/ray_jobs that runs it, on data that are quick."""

NOT_RUN = {
    "prometheus": "runs in test_on_ray.py, with the same file",
    "grafana": "not in Debian",
    "ray": "needs a cluster or a cloud, or changes this user's Ray; parsed by Ray's own parser",
    "aws": "needs a bucket",
    "docker": "needs a daemon and a registry",
    "kubectl": "needs a cluster",
    "pip": "needs the network",
    "tensorboard": "is not among the dependencies; a test of the search reads its files",
    "optuna-dashboard": "serves until it is stopped; a test of the study runs it",
    "curl": "needs a server that runs; requests to the page's API are checked",
    "grep": "of curl",
    "export": "sets variables of the shell",
}
"""Programs that no test runs, and why."""

VARIABLES = {"TMDB_ACCESS_TOKEN", "TMDB_API_KEY", "RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"}


class ParsedError(Exception):
    """Ends a program that has parsed its options."""


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_documents_and_commands_are_found() -> None:
    assert len(DOCUMENTS) >= 9
    found = [" ".join(words) for words in commands()]
    assert len(found) > 60
    for command in (
        "make run",
        "ray up cluster.yaml",
        "movie-ratings ingest tmdb --purge",
        "ray job submit --working-dir . -- python -m ray_jobs.pipeline "
        "--config configs/protocols/losses.toml --set storage=s3://BUCKET/ratings",
    ):
        assert command in found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_is_one_that_its_program_takes(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if "..." in words:  # told apart from a command that can be given as it stands
        words = words[: words.index("...") - 1]
    check(words, monkeypatch)


def check(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    program, *arguments = words
    if found := module_of(words):
        check_module(*found)
    elif program == "movie-ratings":
        assert movie_ratings(arguments) == 0
    elif program in ("python", ".venv/bin/python"):
        check_python(arguments, monkeypatch)
    elif program == "make":
        check_make(arguments)
    elif program == "ray":
        check_ray(arguments, monkeypatch)
    elif program == "curl" and "/api/" in arguments[0]:
        check_request(arguments)
    elif program == "export":
        assert {argument.partition("=")[0] for argument in arguments} <= VARIABLES
    else:
        assert program in NOT_RUN, f"{program}: run it in a test, or say why not in NOT_RUN"
        for argument in arguments:
            if argument.startswith("deploy/"):
                assert (ROOT / argument).is_file()


def check_python(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check_benchmark(arguments, monkeypatch)


def check_module(module: str, arguments: Sequence[str]) -> None:
    """Parsed by the command's own parser; the configuration is read, changed and validated."""
    if module == "ray_jobs":
        assert movie_ratings(arguments) == 0
    elif module == "dev.arrows":
        assert arrows.main() == 0
    elif module == "ingest":
        name, *rest = arguments
        command = ingest.command.get_command(click.Context(ingest.command), name)
        assert command is not None
        load_settings(Options(name, **command.make_context(name, rest).params))
    else:
        (found,) = {module, f"{module}.__main__"} & set(COMMANDS.values())
        command = importlib.import_module(found).command
        given = command.make_context(module, list(arguments)).params
        load_config(given["config_files"], given["overrides"])


def check_request(arguments: list[str]) -> None:
    """The page's API has that path, and takes that body, as far as that does not need a model."""
    path = urlsplit(arguments[0]).path.removeprefix("/api/")
    if "-d" not in arguments:
        assert path == "movies"
        return
    body = arguments[arguments.index("-d") + 1]
    if path == "recommendations":
        RecommendationsRequest.model_validate_json(body)
    else:
        assert path == "predictions"
        PredictionsRequest.model_validate_json(body)


def check_benchmark(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """ParsedError by the benchmark's own parser, which ends there."""
    file = ROOT / arguments[0]
    assert file.parent.name == "benchmarks"
    module = importlib.import_module(f"benchmarks.{file.stem}")
    parse = argparse.ArgumentParser.parse_args
    seen: list[Any] = []

    def stop(parser: argparse.ArgumentParser, *args: Any) -> Any:
        seen.append(parse(parser, *args))
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    found = [[a.replace("*", name) for name in ("1", "2")] if "*" in a else [a] for a in arguments]
    # In place of a pattern a shell puts all that it finds, mostly more than one.
    monkeypatch.setattr(sys, "argv", [argument for part in found for argument in part])
    with pytest.raises(ParsedError):
        module.main()
    (options,) = seen
    if config := getattr(options, "config", None):
        load_config([config] if isinstance(config, str) else config, options.set)


def check_make(arguments: list[str]) -> None:
    done = subprocess.run(
        ["make", "--dry-run", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    for argument in arguments:
        if found := re.fullmatch(r"ARGS=-k (\w+)", argument):
            sources = [file.stem + file.read_text() for file in (ROOT / "tests").rglob("test_*.py")]
            assert any(found[1] in source for source in sources)


def check_ray(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    command: click.Command = cli
    rest = list(arguments)
    while isinstance(command, click.Group):
        name = rest.pop(0)
        command = command.commands[name]
    if not rest:
        return  # a name in a sentence
    context = command.make_context(name, rest)
    if "entrypoint" in context.params:
        check(tuple(context.params["entrypoint"]), monkeypatch)
    for argument in rest:
        if argument.endswith(".yaml"):
            assert (ROOT / argument).is_file()


@pytest.mark.parametrize(("command", "test"), RUN_ELSEWHERE.items())
def test_the_tests_that_run_commands_are_there(command: str, test: str) -> None:
    file, _, name = test.partition("::")
    assert f"def {name}" in (ROOT / "tests" / "ray_jobs" / file).read_text()
    named = any(command in " ".join(words) for words in commands())
    modules = {found[0] for found in map(module_of, commands()) if found}
    assert named or command in modules, "no document has it any more"


def test_every_job_of_a_document_is_run_by_some_test() -> None:
    named = {found[0] for found in map(module_of, commands()) if found}
    unknown = named - set(RUN_ELSEWHERE) - {"ray_jobs", "ingest"}
    # Of those that are not listed above, some test must speak.
    for module in unknown:
        name = module.removeprefix("ray_jobs.")
        tests = (file.read_text() for file in (ROOT / "tests").rglob("test_*.py"))
        assert any(f"import {name}" in text or f'"{module}"' in text for text in tests), module


@pytest.mark.parametrize(
    "words",
    [found[1] for found in map(module_of, commands()) if found and found[0] == "ingest"],
    ids=" ".join,
)
def test_commands_of_the_ingester_that_need_no_network_are_run(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*words, "--storage", str(tmp_path)]
    offline = "synthetic" in words or "--dry-run" in words or "--purge" in words
    if "FOLDER" in " ".join(words):
        (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,1,4.5,9\n")
        (tmp_path / "movies.csv").write_text("movieId,title,genres\n1,Heat (1995),Crime|Drama\n")
        (tmp_path / "movie_titles.csv").write_text("1,1995,Heat\n")
        (tmp_path / "combined_data_1.txt").write_text("1:\n1,4,2005-09-06\n")
        arguments = [argument.replace("FOLDER", str(tmp_path)) for argument in arguments]
    elif not offline:
        arguments.append("--dry-run")

    assert ingest.main(arguments, {}) == 0

    told = capsys.readouterr().out
    if "--json" in words:
        assert json.loads(told)["ratings"] == 2000
    elif "FOLDER" in " ".join(words):
        assert "ratings    1 by 1 users" in told


def test_make_help_lists_the_targets_of_the_documents() -> None:
    done = subprocess.run(["make", "help"], capture_output=True, text=True, check=True, timeout=60)
    for words in commands():
        if words[0] == "make" and len(words) > 1 and "=" not in words[1] and words[1] != "help":
            assert f"make {words[1]}\t" in done.stdout


def test_every_setting_that_a_document_changes_is_one() -> None:
    valid = set(keys(JobConfig))
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for key in re.findall(r"--set\s+'?([a-z_.0-9]+)=", text):
            known = key in valid or any(name.startswith(f"{key}.") for name in valid)
            assert known or key == "section.key", f"{document.name}: {key}"


@pytest.mark.parametrize("block", blocks("toml"), ids=lambda block: block.document)
def test_configurations_in_the_documents_are_valid(block: Any) -> None:
    values = tomllib.loads(block.text)
    assert values
    build(JobConfig, values, block.document)


# -- Links and files -------------------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower().strip()) for heading in found]
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_to_files_and_headings_that_are_there(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_files_that_are_named_are_there(document: Path) -> None:
    folders = "|".join(p.name for p in ROOT.iterdir() if p.is_dir() and p.name[0] not in "._")
    for span in spans(document):
        for name in span.split():
            is_file = re.fullmatch(rf"(?:{folders})/[\w./-]+\.(?:py|toml|md|yaml)", name)
            assert not is_file or (ROOT / name).is_file(), name


# -- Changes that the how-tos describe -------------------------------------------------------------


def apply(diff: str, folder: Path) -> None:
    """Make the changes of a diff, each of which must fit its file in just one place."""
    for part in re.split(r"^--- ", diff, flags=re.MULTILINE)[1:]:
        head, *hunks = part.split("@@\n")
        before, after = head.splitlines()
        file = folder / after.removeprefix("+++ b/")
        assert before in (f"a/{file.relative_to(folder)}", "/dev/null"), before
        assert file.exists() == (before != "/dev/null"), file
        text = file.read_text() if file.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            old = "".join(line[1:] or "\n" for line in lines if line[0] in " -")
            new = "".join(line[1:] or "\n" for line in lines if line[0] in " +")
            assert text.count(old) == 1, f"{file.name}: {old}"
            text = text.replace(old, new)
        file.write_text(text)


COMMON = """
import pandas as pd, numpy as np, torch, pathlib
from ncf.data import features
from ncf.data.batches import Batch
from ncf.config import ExperimentConfig, FeaturesConfig, ModelConfig, TimeDecayConfig, TrainConfig
from ncf.evaluation.metrics import METRICS
from ncf.inference import checkpoint
from ncf.inference.ordering import Ordering
from ncf.inference.recommender import load
from ncf.models.targets import Objective
from ncf.training.loop import fit
from ncf.training.trainer import build

torch.set_num_threads(1)
movies = features.join_movies(pd.DataFrame({
    "movie_id": [1, 2, 3, 4],
    "title": ["a", "b", "c", "d"],
    "genres": [["x"], ["x", "y"], ["x", "y", "z"], []],
    "year": [1990.0, 1991.0, 1992.0, 1993.0],
}), None)
statistics = features.TrainingStatistics(
    np.array([7]), np.array([1, 2, 3]), np.array([1, 3, 8]), 40.0, 0.5, 5.0, 100
)
wanted = FeaturesConfig(numeric=("num_genres",), transform="none")
fitted = features.fit(statistics, movies, wanted, TimeDecayConfig())
rows = Batch(
    torch.ones(12, dtype=torch.int32),
    torch.tensor([0] + [1] * 3 + [2] * 8, dtype=torch.int32),
    torch.tensor([1.0] + [3.0] * 3 + [5.0] * 8),
    torch.ones(12),
    torch.arange(12),
)


def trained(model, train, metric="rmse", validation=rows):
    # The network, the recommender that is loaded after saving it, and the result.
    experiment = ExperimentConfig(
        model=ModelConfig(embedding_dim=3, hidden_dims=(4,), dropout=0.0, **model),
        train=TrainConfig(batch_size=6, epochs=30, learning_rate=0.05, **train),
        time_decay=TimeDecayConfig(apply_to="none"),
    )
    built = build(experiment, fitted, rows)
    objective = Objective(experiment.train, experiment.time_decay, fitted)
    result = fit(built, rows, validation, objective, metric=METRICS[metric])
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss
    checkpoint.save(pathlib.Path("model"), result.last, experiment, fitted, {})
    recommender = load("model")
    with torch.no_grad():
        outputs = built.eval().expected_ratings(rows.users, rows.movies)
    np.testing.assert_allclose(
        recommender.predict(7, np.array([1, 2, 3])[rows.movies]),
        objective.stars(outputs, rows).numpy(),
        atol=1e-6,
    )
    # All pairs at once and one by one come to the same.
    best = recommender.recommend(7, 4, ordering=Ordering(min_ratings=0))
    assert len(best.movies) == 4
    np.testing.assert_allclose(best.scores, recommender.predict(7, best.movies), atol=1e-5)
    assert (np.diff(best.scores) <= 0).all()
    return built.network, recommender, result
"""

BRANCH = """
# One, two and three genres: mean 2, standard deviation sqrt(2/3); the fourth movie has none.
numbers = fitted.movies.numeric[:, 0] * (2 / 3) ** 0.5 + 2
np.testing.assert_allclose(numbers, [1, 2, 3, 0], atol=1e-6)
network, recommender, _ = trained(
    {"inputs": ("user", "numeric", "count")}, {"embedding_l2": 3.0}
)
branch = network.branches["count"]
# 1 is the zeroth power of two, 3 lies above the first, 8 is the third, and 0 is unknown.
assert branch.index.tolist() == [1, 2, 4, 0]
assert branch(torch.tensor([0]), torch.tensor([3])).abs().sum() == 0
strengths = {id(table): strength for table, strength in network.l2_penalties(TrainConfig())}
assert strengths[id(branch.table.weight)] == TrainConfig().embedding_l2
assert len(strengths) == 2  # and that of the users
# Similar movies by the new branch alone: cosines of its vectors, worked out by hand.
network, recommender, _ = trained({"inputs": ("user", "count")}, {"embedding_l2": 3.0})
vectors = network.branches["count"].table.weight.detach().numpy()[[1, 2, 4]]
lengths = np.linalg.norm(vectors, axis=1)
cosines = dict(zip([2, 3], vectors[1:] @ vectors[0] / lengths[1:] / lengths[0]))
similar = recommender.similar(1, 3)
assert sorted(similar.movies) == [2, 3, 4]
for movie, score in zip(similar.movies, similar.scores):
    np.testing.assert_allclose(score, cosines.get(movie, 0.0), atol=1e-5)
"""

LOSS = """
from ncf.training.losses import get_loss
loss = get_loss("log_cosh")
errors = torch.tensor([0.0, -0.5, 2.0, 1000.0])
np.testing.assert_allclose(
    loss.of_rows(errors, torch.zeros(4)),
    [0, np.log(np.cosh(0.5)), np.log(np.cosh(2.0)), 1000 - np.log(2)],
    rtol=1e-6, atol=1e-6,
)
for head in ("regression", "ordinal"):
    network, recommender, result = trained(
        {"inputs": ("user", "movie"), "head": head}, {"loss": "log_cosh"}
    )
    similar = recommender.similar(1, 3)
    assert sorted(similar.movies) == [2, 3, 4]
    assert (np.abs(similar.scores) <= 1 + 1e-6).all()
    # An error of two stars in every row would come to this.
    assert abs(result.epochs[-1].train_loss) < np.log(np.cosh(2.0))
"""

METRIC = """
from ncf.evaluation.metrics import ErrorSums, Scores
# Errors 0.5, 0.6 and 0: two of three are within half a star; times the weight 0.8, all are.
targets, predictions = torch.tensor([3.0, 4.0, 1.0]), torch.tensor([3.5, 3.4, 1.0])
scores = Scores(
    ErrorSums.of(predictions, targets), ErrorSums.of(0.8 * predictions, 0.8 * targets)
)
metric = METRICS["within_half"]
assert (metric.direction, metric.of(scores)) == ("max", 2 / 3)
assert METRICS["decayed_within_half"].of(scores) == 1
assert (scores + scores).as_dict()["within_half"] == 2 / 3
# One row after the other comes within half a star of its rating.
network, recommender, result = trained(
    {"inputs": ("user", "movie")}, {"patience": 12, "schedule": "constant"}, "within_half"
)
values = [epoch.as_dict()["validation_within_half"] for epoch in result.epochs]
assert len(set(values)) > 1
assert result.best_epoch == int(np.argmax(values)) + 1
assert len(values) in (30, result.best_epoch + 12)
error = (recommender.predict(7, np.array([1, 2, 3])[rows.movies]) - rows.ratings.numpy())
assert abs((np.abs(error) <= 0.5).mean() - values[-1]) < 1e-6
assert sorted(recommender.similar(1, 3).movies) == [2, 3, 4]
"""


BASELINE = """
from ncf.baselines import ALL, baseline_specs, fit_baselines
from ncf.baselines.median import MedianSettings, fit as fit_median
from ray_jobs.config import CompareConfig
assert ALL[:3] == ("global-mean", "damped-bias", "movie-median")
assert "movie-median" in CompareConfig().baselines
assert CompareConfig(baselines=["movie-median"]).baselines == ("movie-median",)
# Above two million ratings it is left out, as it does not fit any size.
notes = []
assert len(baseline_specs(2_000_001, ["movie-median"], notes.append)) == 1
assert "movie-median" in notes[0]


def batch(movies, ratings):
    count = len(movies)
    return Batch(
        torch.ones(count, dtype=torch.int32), torch.tensor(movies, dtype=torch.int32),
        torch.tensor(ratings), torch.ones(count), torch.arange(count),
    )


train = batch([0, 1, 1, 1, 2, 2], [5.0, 1.0, 2.0, 4.0, 3.0, 4.0])
# Medians 5, 2 and 3.5; of all 1, 2, 3, 4, 4, 5 it is 3.5, which the movie without ratings has.
medians = fit_median(train, fitted, MedianSettings(1)).medians
np.testing.assert_array_equal(medians, [5.0, 2.0, 3.5, 3.5])
np.testing.assert_array_equal(fit_median(train, fitted, MedianSettings(2)).medians[0], 3.5)
# The first movie has a rating of 3.5 in the validation rows: two ratings are needed.
validation = batch([0, 1], [3.5, 2.0])
mean, found = fit_baselines(train, validation, fitted, ["movie-median"])
assert (mean.baseline.name, found.baseline.name) == ("global mean", "movie median")
assert found.settings == MedianSettings(2) and not found.is_seeded
np.testing.assert_array_equal(found.baseline.predict(validation), [3.5, 2.0])
assert found.baseline.score(validation, fitted).stars.rmse == 0
(again,) = found.refit(batch([0, 0], [1.0, 2.0]), fitted)
np.testing.assert_array_equal(again.predict(validation), [1.5, 1.5])
assert "2 ratings or more" in again.detail
"""


CHOICES = """
from ncf.baselines.choice.base import tune_choice_baseline
from ncf.baselines.choice.fading import FADING, FadingSettings
from ncf.choice_config import NetworkConfig
from ncf.data.interactions import Interactions
from ncf.evaluation.ranking_metrics import DEFAULT_METRICS, RankingMetric
from ncf.models.choice.network import Choices, KnownRatings, Logits, build_network
from ncf.training.choice.batches import ChoiceBatch
from ncf.training.choice.loop import ChoiceTraining
from ncf.training.choice.losses import get_loss
from ncf.training.choice.negatives import Drawn
from ray_jobs.config import ChoiceSearchConfig, CompareConfig

# Two users, who chose movies 0 and 1, and 2. Movies 3, 2 and 1 were drawn, 3 twice; the first user
# has rated 1, the second 2.
batch = ChoiceBatch(
    known=KnownRatings(*[torch.zeros(0, dtype=torch.int64)] * 6),
    choices=Choices(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2])),
    weights=torch.ones(3), num_users=2,
)
logits = Logits(
    torch.tensor([2.0, 0.5, 1.0]), torch.tensor([[1.5, 0.0, 9.0], [0.25, 9.0, 3.0]])
)
drawn = Drawn(
    torch.tensor([3, 2, 1]), torch.tensor([2.0, 1.0, 1.0]).log(), torch.zeros(3),
    torch.tensor([[False, False, True], [False, True, False]]), torch.zeros(3, 0),
)
loss = get_loss(NetworkConfig(loss="hinge"), np.array([9, 1, 1, 1]), torch.device("cpu"))
# 1 - 2 + 1.5 twice and nothing; 1 - 0.5 + 1.5 twice and 1 - 0.5 + 0; 1 - 1 + 0.25 twice and
# 1 - 1 + 3.
np.testing.assert_allclose(
    loss.of_choices(logits, batch, drawn), [1 / 3, 4.5 / 3, 3.5 / 3], rtol=1e-6
)

year = 366 * 86400
train = Interactions.of(
    [7, 7, 7, 8, 8, 9, 9], [0, 1, 2, 0, 1, 2, 3], [4.0] * 7,
    [0, 9 * year, 9 * year, 0, 10 * year, 0, 10 * year], 4,
)
config = NetworkConfig(
    loss="hinge", epochs=40, batch_users=2, dim=4, l2=0.0, bias_l2=0.0, learning_rate=0.05,
    content=False, age=False,
)
network = build_network(config, fitted, train)
losses = [epoch.train_loss for epoch in ChoiceTraining(network, train, config, "random")]
assert np.isfinite(losses).all() and np.mean(losses[30:]) < 0.8 * np.mean(losses[:10]), losses

metric = RankingMetric.parse("precision@4")
hits = np.array([[True, False, True, True, True], [False] * 5, [False] * 5])
np.testing.assert_array_equal(metric.of(hits, np.array([9, 1, 0])), [0.75, 0.0, np.nan])
assert RankingMetric("precision", 10) in DEFAULT_METRICS
assert ChoiceSearchConfig(metric="precision@10").metric == "precision@10"

assert CompareConfig().choice.baselines[:2] == ("popular", "fading")
# Halved each year: movie 1 has 1.5 and its rival 3 has 1; with long memory 0, 1 and 2 have two.
first = FADING.fit(train, fitted, FadingSettings(1.0))
assert first.order.tolist() == [1, 3, 2, 0]
assert FADING.fit(train, fitted, FadingSettings(1e6)).order.tolist() == [1, 2, 0, 3]
tried = []
tune_choice_baseline(FADING, train, fitted, lambda model: tried.append(model) or 0.0, 3)
assert len(tried) == 3
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages with every change that the how-tos describe."""
    folder = tmp_path_factory.mktemp("changed")
    for package in ("foundation", "ingest", "ncf", "ray_jobs"):
        shutil.copytree(ROOT / package, folder / package)
    for block in blocks("diff"):
        apply(block.text, folder)
    return folder


def run_with_changes(program: str, changed: Path, folder: Path) -> None:
    """Run ``program`` after ``COMMON`` with the changed packages, in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-c", COMMON + program + "print('done')"],
        cwd=folder,
        env={"PYTHONPATH": str(changed), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


@pytest.mark.system
def test_the_branch_and_the_feature_of_the_how_tos_work(changed: Path, tmp_path: Path) -> None:
    run_with_changes(BRANCH, changed, tmp_path)


@pytest.mark.system
def test_the_loss_of_the_how_to_works(changed: Path, tmp_path: Path) -> None:
    run_with_changes(LOSS, changed, tmp_path)


@pytest.mark.system
def test_the_baseline_of_the_how_to_works(changed: Path, tmp_path: Path) -> None:
    run_with_changes(BASELINE, changed, tmp_path)


@pytest.mark.system
def test_the_metric_of_the_how_to_works(changed: Path, tmp_path: Path) -> None:
    run_with_changes(METRIC, changed, tmp_path)


@pytest.mark.system
def test_the_parts_of_the_choice_model_of_the_how_to_work(changed: Path, tmp_path: Path) -> None:
    run_with_changes(CHOICES, changed, tmp_path)
