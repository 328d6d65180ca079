"""Defences whose maths stands alone."""
