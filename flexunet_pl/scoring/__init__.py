"""Scores that can be trusted: each case and class on its own, then means with intervals over groups."""
