"""Studies of how good the measures are."""
