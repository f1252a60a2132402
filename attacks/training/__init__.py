"""Attacks that fine-tune differently, by another loss of a training step, or find out by fine-tuning what to drop."""
