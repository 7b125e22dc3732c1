"""The feature contract and the networks that keep it."""
