"""How a program ends at an unexpected exception."""

from __future__ import annotations

import re
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from foundation import cli

SECRET = "s3cr3t-of-the-test"


def ending(error: Exception) -> click.Command:
    def work() -> None:
        raise error

    return click.Command("work", callback=work)


def logged(text: str) -> str:
    """Content of the file that a message names."""
    found = re.search(r"with the traceback in (\S+\.log)\.", text)
    assert found
    file = Path(found[1])
    content = file.read_text()
    file.unlink()
    return content


def test_an_unexpected_exception_ends_with_a_paragraph_and_a_log_file(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(ending(KeyError("a name")), []) == cli.FAILED
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "unexpected KeyError: 'a name'. " in said
    assert "Traceback (most" not in said
    content = logged(said)
    assert content.startswith("Traceback")
    assert "raise error\nKeyError: 'a name'\n" in content


def test_its_message_is_short_and_without_secrets(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMDB_ACCESS_TOKEN", SECRET)
    assert cli.main(ending(ValueError(f"at {SECRET}\nsecond line {'x' * 5000}")), []) == cli.FAILED
    said = capsys.readouterr().err
    content = logged(said)
    assert "ValueError: at ***." in said
    assert "second line" not in said
    assert SECRET not in said + content
    assert cli.main(ending(ValueError("x" * 5000)), []) == cli.FAILED
    said = capsys.readouterr().err
    logged(said)
    assert len(said) < 700


def test_what_does_not_fit_into_memory_is_named_with_what_to_lower(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = []
    for allocate in (lambda: np.empty(2**56), lambda: torch.empty(2**56)):
        try:
            allocate()
        except (MemoryError, RuntimeError) as error:
            found.append(error)
    for each in found:
        assert cli.main(ending(each), []) == cli.FAILED
        said = capsys.readouterr().err
        assert said.startswith("error: out of memory: ")
        assert "lower what is trained: train.batch_size" in said
        assert "Traceback" not in said
    assert len(found) == 2
