"""Studies of what updates give away."""
