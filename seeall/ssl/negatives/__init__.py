"""Whom to push away: one file for each answer."""
