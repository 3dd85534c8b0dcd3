"""Training of choice models, above all of the choice network. No Ray.

::

    masks        division of each user's ratings into known ones and choices, anew in each epoch
    batches      batches of users, and each worker's shard
    negatives    movies drawn by their popularity
    losses       what a step minimises: softmax, sampled softmax, BPR, WARP, binary cross-entropy
    loop         epochs, early stopping and the best epoch
    state        what an interrupted training continues from
    fit          a whole choice model: EASE, the network, and how both are combined
"""

__all__ = ["batches", "fit", "loop", "losses", "masks", "negatives", "state"]
