"""Pages of split-learning runs."""
