"""What a user's other ratings add to a prediction: encoders whose outputs are inputs of the dense
layers, and a Gaussian process over the user's ratings."""

__all__ = [
    "encoders",
    "gaussian_process",
    "ratings",
]
