"""Recipe to objects: encoder, Bridge-Net, language model, the two stages."""
