"""A gallery of people: an index whose labels are people, a rule that scores them, and a threshold that was measured."""
