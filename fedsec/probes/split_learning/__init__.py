"""Attacks on split learning's exchange."""
