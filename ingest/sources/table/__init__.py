"""Ratings or clicks of the user's own, in one table of any shape, and optionally one of movies."""
