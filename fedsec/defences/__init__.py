"""Defences of what leaves a site while it trains: pure maths, each with its equations named."""
