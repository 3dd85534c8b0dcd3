"""Neural collaborative filtering: data preparation, model, training and evaluation.

Only ``ncf.pipeline`` imports Ray; everything else runs, and is tested, with no cluster.
"""
