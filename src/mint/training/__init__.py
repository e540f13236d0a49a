"""Training of both stages by transformers' `Trainer`."""
