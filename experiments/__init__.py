"""Experiments: a TOML of overrides each, and the script that turns their results into tables."""
