"""Learning without labels: objectives, views, projector, probes."""
