"""Runs as Markdown tables and pictures: one module a table."""
