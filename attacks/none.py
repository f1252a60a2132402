"""The control: fine-tune on the release as it is."""

from __future__ import annotations

from arena.plugins.base import Attack


class NoAttack(Attack):
    """No attack: the released samples unchanged, plain training."""
