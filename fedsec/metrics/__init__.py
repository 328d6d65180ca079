"""Measured numbers. A score's name states its protocol; what cannot be computed is NaN with a reason."""
