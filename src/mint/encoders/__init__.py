"""Frozen audio encoders, one file per family: waveform [B, S] and lengths -> features [B, T, D] and mask [B, T]."""
