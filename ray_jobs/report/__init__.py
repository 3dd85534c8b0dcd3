"""Results of a run -> ``report.html``, ``report.md`` and ``plots/``.

``pipeline`` puts the report of a run together from ``sections``, each module of which describes one
thing; ``document`` makes Markdown and HTML of them, and ``writing`` the files.
"""

__all__ = ["document", "pipeline", "plots", "sections", "writing"]
