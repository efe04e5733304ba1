"""Probabilities: the non-parametric density, the Gaussian, and the tables made of them."""
