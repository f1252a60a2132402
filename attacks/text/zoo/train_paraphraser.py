"""Training of the paraphraser, the embedded default of the attack `paraphrase`.

``python -m attacks.text.zoo FOLDER`` trains it from its seed, packs it in ``FOLDER/paraphraser``
(`attacks.text.zoo.pack`), and goes on where an earlier call was interrupted: every batch is a function of seed and
step. The weights that are shipped took one thread, ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from arena.files import atomically
from attacks.text.zoo.lesson import Arrival, Lesson
from attacks.text.zoo.model import Spec

CHECKPOINT_EVERY = 250
BLOCK = 8
"""Batches that are drawn together."""
_IGNORE = -100


class Training:
    """The paraphraser on its way, checkpointed in `folder`."""

    def __init__(self, spec: Spec, folder: Path, say: Callable[[str], None] = print) -> None:
        self.spec, self.folder, self.say = spec, folder, say
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer = spec.tokenizer()
        self.model = spec.build(self.tokenizer).train()
        self.lesson = Lesson()
        self._drawn: tuple[int, list[list[Arrival]]] = (-1, [])

    def run(self) -> None:
        parameters = list(self.model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=self.spec.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        step, mean = self._resume(optimizer), math.nan
        while step < self.spec.steps:
            for group in optimizer.param_groups:
                group["lr"] = self.spec.learning_rate * _one_cycle(step / self.spec.steps)
            loss = self.model(**self._batch(step)).loss
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
            if step % CHECKPOINT_EVERY == 0 or step == self.spec.steps:
                self._checkpoint(step, optimizer)
                self.say(f"paraphraser {step}/{self.spec.steps} loss {mean:.4f}")

    def _batch(self, step: int) -> dict[str, Tensor]:
        arrivals = self._block(step // BLOCK)[step % BLOCK]
        texts = self.tokenizer([a.text for a in arrivals], padding=True, return_tensors="pt")
        targets = self.tokenizer([a.pair.rewriting for a in arrivals], padding=True, return_tensors="pt")
        labels = targets["input_ids"].masked_fill(targets["attention_mask"] == 0, _IGNORE)
        return {"input_ids": texts["input_ids"], "attention_mask": texts["attention_mask"], "labels": labels}

    def _block(self, number: int) -> list[list[Arrival]]:
        """`BLOCK` batches that were drawn together: like lengths share one, so that little is padded."""
        if self._drawn[0] != number:
            rng, size = np.random.default_rng((self.spec.seed, 1, number)), self.spec.batch_size
            arrivals = sorted(self.lesson.arrivals(rng, BLOCK * size), key=lambda a: len(a.text))
            self._drawn = number, [arrivals[i * size : (i + 1) * size] for i in rng.permutation(BLOCK)]
        return self._drawn[1]

    @property
    def _path(self) -> Path:
        return self.folder / "training.safetensors"

    def _checkpoint(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Weights and optimizer moments in one safetensors file, replaced atomically."""
        tensors = {f"model.{name}": value.detach() for name, value in self.model.named_parameters()}
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        with atomically(self._path) as partial:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"step": json.dumps(step)})

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        if not self._path.exists():
            return 0
        tensors = load_file(self._path)
        with safe_open(self._path, "pt") as file:
            step = int(json.loads(file.metadata()["step"]))
        own = dict(self.model.named_parameters())
        states: dict[int, dict[str, Tensor]] = {}
        with torch.no_grad():
            for key, value in tensors.items():
                part, _, name = key.partition(".")
                if part == "model":
                    own[name].copy_(value)
                else:
                    index, _, moment = name.partition(".")
                    states.setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
        return step


def _one_cycle(done: float, warm: float = 0.06) -> float:
    """Linear warm-up, cosine decay; a factor on the learning rate."""
    return done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
