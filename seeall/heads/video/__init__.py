"""Video made cheap: what frames have in common is not computed, learnt or labelled twice."""
