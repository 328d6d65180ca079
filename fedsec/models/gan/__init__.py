"""Generators: networks, losses, local steps, recorded and private steps, diffusion."""
