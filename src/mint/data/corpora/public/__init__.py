"""Readers of public corpora in their official layouts."""
