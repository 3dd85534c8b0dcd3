"""Export the network of a run's final model."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

from foundation.console import show, show_json
from ncf.inference.export import Format, export
from ray_jobs.results.final_model import final_model, load_model
from ray_jobs.results.run import Workspace

logger = logging.getLogger(__name__)


def export_network(workspace: Workspace, folder: Path, form: Format, *, as_json: bool) -> None:
    """Write the network into a folder, and print what was written.

    Raises:
        NoModelError: if the run has no rating model.
        InputError: if the folder is there and not empty.
        UnsupportedError: if the network cannot be exported.
    """
    checkpoint = load_model(final_model(workspace))
    if checkpoint.blend is not None:
        logger.warning(
            "the final model is a blend; its network alone is exported, whose errors are larger"
        )
    found = export(checkpoint, folder, form)
    if as_json:
        show_json(asdict(found) | {"folder": str(found.folder)})
        return
    show(
        f"{found.folder / found.file}: predicts as the network does, by {found.num_checked:,} "
        f"pairs (largest difference {found.largest_difference:.1e} stars)"
    )
