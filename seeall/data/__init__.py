"""Pictures: finding, reading and checking them; the synthetic world; keyed randomness."""
