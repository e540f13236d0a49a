"""Clips, manifests and mixtures: from files on disk to batches. Nothing here knows a model."""
