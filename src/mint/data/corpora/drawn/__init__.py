"""Corpora without recordings: feature maps drawn from what a frozen encoder's own classifier knows."""
