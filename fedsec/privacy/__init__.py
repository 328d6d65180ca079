"""Differential privacy: noise on updates, what it is worth, and what a run may promise. No torch."""
