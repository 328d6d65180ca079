"""Studies of split learning's accuracy and leaks."""
