"""All tests of submissions run beside a board of their own."""

from __future__ import annotations

from submission_tools import board

__all__ = ["board"]
