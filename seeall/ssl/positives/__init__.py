"""Who belongs together: one file for each answer."""
