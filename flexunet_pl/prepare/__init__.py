"""Data sets before training: phantoms."""
