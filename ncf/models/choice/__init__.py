"""Models of what users choose to watch: scores of all movies from a user's known ratings.

::

    base       the interface: scores of users' known ratings
    values     what a rating says about a choice, by its stars and age
    content    movies' genres, decades, numbers and names as columns
    context    times as smooth features
    ease       EASE with rating values, content and context, in closed form
    network    the choice network: history encoder, content, age and era
    experts    the product of both

A score is higher for a movie that the user is more likely to choose next. Only the order of one
user's scores has a meaning.
"""
