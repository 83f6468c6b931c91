"""Adaptive batch normalisation networks, the second paper: layer, networks, training, attacks."""
