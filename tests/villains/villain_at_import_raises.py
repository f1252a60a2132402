"""Raises when it is imported."""

raise RuntimeError("no import today")
