"""Figures that say how good an embedding is."""
