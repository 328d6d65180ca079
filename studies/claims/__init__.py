"""The numbers of README and pages, held to the files they come from."""
