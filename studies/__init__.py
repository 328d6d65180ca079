"""One-off studies behind pages of docs/results, a folder a question."""
