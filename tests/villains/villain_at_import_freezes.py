"""Switches torch's gradients off when it is imported."""

import torch
from villains import Unchanged

torch.set_grad_enabled(False)


class Freezes(Unchanged):
    pass
