"""A run from its plan to its end: cells, processes, progress, matrices, the models that are kept."""
