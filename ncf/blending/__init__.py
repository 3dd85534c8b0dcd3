"""A network and baselines blended into one rating model.

::

    weights   non-negative least squares on the validation rows
    blend     the members, their prediction, and their folder in a checkpoint

A baseline can be a member if ``ncf.registry.BASELINES`` names the function that loads it.
"""
