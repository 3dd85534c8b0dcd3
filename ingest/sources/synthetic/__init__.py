"""A generated, MovieLens-shaped data set whose true model is known.

A rating is ``mean + user bias + movie quality + taste + drift + noise``, rounded to half stars and
clipped to 0.5..5:

- quality depends on the movie's genres, decade and director; TMDb's numbers are noisy views of it;
- taste is the product of user and movie factors; a movie's factors depend mostly on its genres, its
  year and the size of its production, of which TMDb's budget is a noisy view;
- drift is a linear trend over the years, with a slope for each user.

What a user rates is a choice. In a session they feel like a genre and meet one of its movies that
are out, more likely a popular or a new one. They choose it if they expect to like it, or else look
for another one. So

- the numbers of ratings have a long tail, and each user rates a movie once;
- the genres depend on the user's taste, and on a habit that has nothing to do with it;
- ratings are missing not at random: chosen movies have higher true ratings than others.

So a model of users and movies beats their means, a model with genres, people and numbers is better
still on rarely rated movies, and no model can beat the noise floor in ``dataset.json``. No ranking
of movies that a user does not know can be expected to beat that by ``choice_oracle``. The seed
determines everything.

::

    world    the true model: movies, users, their tastes and the true ratings
    choices  which movies users meet and choose, in which sessions
    data     the tables of a data set, with ratings in batches
    oracle   the true probabilities of choices
    records  TMDb-shaped records of the movies
    source   the source, which writes all of it
"""

from ingest.sources.synthetic.choices import Choices
from ingest.sources.synthetic.data import SyntheticData
from ingest.sources.synthetic.oracle import choice_oracle
from ingest.sources.synthetic.records import SyntheticTmdb
from ingest.sources.synthetic.source import SyntheticSource
from ingest.sources.synthetic.world import World

__all__ = [
    "Choices",
    "SyntheticData",
    "SyntheticSource",
    "SyntheticTmdb",
    "World",
    "choice_oracle",
]
