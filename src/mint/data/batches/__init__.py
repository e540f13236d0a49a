"""Clips to batches: the mixture of corpora, and padding."""
