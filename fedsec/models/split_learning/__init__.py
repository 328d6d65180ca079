"""A network cut in two, its steps and what crosses between the halves."""
