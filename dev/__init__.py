"""Tools for those who work on the project: generators of reference documents, the training loop of
the original work for comparison, and the diary of experiments."""
