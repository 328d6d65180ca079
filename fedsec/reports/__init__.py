"""The run log, the results file and the one-file report. Neither torch nor Flower is imported here."""
