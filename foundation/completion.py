"""Shell completion by Click, without a space after a completed ``key=``."""

from __future__ import annotations

from click.shell_completion import BashComplete, ZshComplete, add_completion_class


class BashWithoutSpace(BashComplete):
    """Completion for bash."""

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)\n",
        "COMPREPLY+=($value)\n            [[ $value == *= ]] && compopt -o nospace\n",
    )


class ZshWithoutSpace(ZshComplete):
    """Completion for zsh."""

    source_template = ZshComplete.source_template.replace(
        'completions+=("$key")\n',
        '[[ "$key" == *= ]] && compadd -U -S "" -- "$key" || completions+=("$key")\n',
    )


def register() -> None:
    """Use these classes in place of Click's."""
    add_completion_class(BashWithoutSpace)
    add_completion_class(ZshWithoutSpace)
