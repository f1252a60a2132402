"""Attacks that fine-tune differently: they replace the loss of a training step."""
