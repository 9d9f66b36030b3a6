"""params.yaml, checked; where every file lies; which cells there are."""
