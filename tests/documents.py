"""What the documents hold: commands, code blocks, links, and the files that they name."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray_jobs.__main__ import COMMANDS
from tests.support import ROOT

DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "dev" / "experiments.md",
)
PROGRAMS = ("movie-ratings", "python", ".venv/bin/python", "make", "ray", "pip", "tensorboard")
"""Code within a sentence that begins with one of these is a command too."""

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`]+)`")
_VARIABLE = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    language: str
    """Empty for commands and for drawings."""
    text: str


def blocks(language: str) -> list[Block]:
    """Every block of a language, in all documents."""
    return [
        Block(document.name, found[2], textwrap.dedent(found[3]))
        for document in DOCUMENTS
        for found in _BLOCK.finditer(document.read_text(encoding="utf-8"))
        if found[2] == language
    ]


def prose(document: Path) -> str:
    """A document without its blocks."""
    return _BLOCK.sub("", document.read_text(encoding="utf-8"))


def spans(document: Path) -> list[str]:
    """Code within sentences."""
    return [" ".join(span.split()) for span in _INLINE.findall(prose(document))]


def commands() -> list[tuple[str, ...]]:
    """Every command of every document, as words, each once."""
    found = [words for block in blocks("") if not _is_drawing(block) for words in _lines(block)]
    for document in DOCUMENTS:
        within = [span for span in spans(document) if span.split()[0] in PROGRAMS]
        found += [words for span in within if " " in span for words in _words(span)]
    return list(dict.fromkeys(found))


def module_of(words: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """The module that a command runs, and its arguments; None if it runs none of the project."""
    if words[0] == "movie-ratings" and len(words) > 1 and words[1] in COMMANDS:
        return COMMANDS[words[1]].removesuffix(".__main__"), words[2:]
    if words[1:2] == ("-m",):
        return words[2], words[3:]
    return None


def _is_drawing(block: Block) -> bool:
    return "->" in block.text


def _lines(block: Block) -> Iterator[tuple[str, ...]]:
    for line in block.text.replace("\\\n", " ").splitlines():
        yield from _words(line)


def _words(line: str) -> Iterator[tuple[str, ...]]:
    """The commands of a line, without its comment and what is only for the shell."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "|"]:
        if word != "|":
            words.append(word)
            continue
        while words and (_VARIABLE.match(words[0]) and words[0] != "export"):
            words.pop(0)
        if words and words[-1] == "&":
            words.pop()
        if words:
            yield tuple(words)
        words = []
