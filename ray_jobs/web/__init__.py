"""The web page to try a model, and its API: ``python -m ray_jobs.serve``."""
