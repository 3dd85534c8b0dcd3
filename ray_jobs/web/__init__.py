"""The web page to try a model, and its API: ``movie-ratings serve``."""
