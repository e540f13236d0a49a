"""Bridge-Net, its three objectives and the two stages. Reads no files, tokenises no text."""
