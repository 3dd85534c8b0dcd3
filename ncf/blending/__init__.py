"""A network and further members blended into one rating model.

::

    weights             non-negative least squares on the validation rows
    blend               the members, their prediction, and their folder in a checkpoint
    stacking            members that are fitted to the network's out-of-fold predictions
    residual_boosting   such a one: trees that correct the network

A baseline can be a member if ``ncf.registry.BASELINES`` names the function that loads it; a stacked
member is a line in ``ncf.registry.STACKED_MEMBERS``.
"""
