"""Ablations of the quickstart: which cells are trained (Tables 5 and 6), and their plot."""
