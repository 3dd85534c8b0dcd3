"""Tools for contributors: generators of reference documents, a report on imports, the training loop
of the original work for comparison, and the diary of experiments."""
