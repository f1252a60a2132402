"""Fine-tunings of one model and recipe that are trained together: one forward and backward pass serves a step of all of
them, each with its own adapters (packed LoRA jobs, PLoRA, Yan 2025, arXiv 2508.02932).

Each training stays what it is alone, Trainer, optimiser, schedule, order of samples and random numbers included; a
thread of its own waits where its step is computed. A product of matrices is computed training by training, since its
last bits may depend on how many rows it has; all else is done for all rows at once. So on a CPU in float32 a training
has the same weights, bit for bit, whatever it is packed with, and the same as without.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.nn import functional as F

from arena.lvlm.base import LVLM, answer_loss, kept_positions
from arena.lvlm.batch import Batch
from arena.lvlm.features import Entangled, handed


class Member:
    """One training of a pack, as its own thread sees it."""

    def __init__(self) -> None:
        self.to_thread: queue.SimpleQueue[Tensor | None] = queue.SimpleQueue()
        self.from_thread: queue.SimpleQueue[tuple[LVLM, Batch] | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self.random = torch.get_rng_state()

    def step(self, lvlm: LVLM, batch: Batch) -> Tensor:
        """Have the gradients of a step computed with those of the others; returns its loss."""
        self.from_thread.put((lvlm, batch))
        loss = self.to_thread.get()
        if loss is None:
            raise SystemExit  # the pack was given up
        return loss

    def resume(self, loss: Tensor | None) -> tuple[LVLM, Batch] | None:
        """Let the training go on, with the random numbers that are its own, until its next step; None at its end."""
        torch.set_rng_state(self.random)
        self.to_thread.put(loss)
        asked = self.from_thread.get()
        self.random = torch.get_rng_state()
        return asked


def train_together(trainings: Sequence[Callable[[Member], None]]) -> None:
    """Run trainings, each of which hands its steps to the `Member` that it is given. Raises the first error of one."""
    members = [Member() for _ in trainings]
    threads = [
        threading.Thread(target=_run, args=(training, member), daemon=True)
        for training, member in zip(trainings, members, strict=True)
    ]
    for thread in threads:
        thread.start()
    pack = Pack()
    waiting: dict[int, Tensor] = dict.fromkeys(range(len(members)), torch.zeros(()))
    try:
        while waiting:
            asked: dict[int, tuple[LVLM, Batch]] = {}
            for number, loss in waiting.items():
                step = members[number].resume(loss)
                if members[number].error is not None:
                    raise members[number].error  # type: ignore[misc]
                if step is not None:
                    asked[number] = step
            waiting = pack.step(asked, members)
    finally:
        for member, thread in zip(members, threads, strict=True):
            member.to_thread.put(None)
            thread.join()


def _run(training: Callable[[Member], None], member: Member) -> None:
    try:
        if member.to_thread.get() is not None:
            training(member)
    except BaseException as error:
        member.error = error
    member.from_thread.put(None)


@dataclass
class Pack:
    """The layers with adapters, by name, of each training."""

    layers: dict[int, dict[str, Any]] = field(default_factory=dict)

    def step(self, asked: dict[int, tuple[LVLM, Batch]], members: Sequence[Member]) -> dict[int, Tensor]:
        """Put gradients where each training's optimiser looks for them; losses by training.

        Batches that give matrices of one shape are computed in one pass.
        """
        losses: dict[int, Tensor] = {}
        groups: dict[Any, list[int]] = {}
        for number, (lvlm, batch) in asked.items():
            if number not in self.layers:
                self.layers[number] = plain_adapters(lvlm)
            together = self.layers[number] and batch.features is not None
            key = (batch.input_ids.shape, kept_positions(batch)) if together else number
            groups.setdefault(key, []).append(number)
        for numbers in groups.values():
            try:
                if len(numbers) == 1:
                    raise Entangled
                losses |= self._together({n: asked[n] for n in numbers}, [members[n] for n in numbers])
            except Entangled:
                for number in numbers:
                    losses[number] = _alone(*asked[number], members[number])
        return losses

    def _together(self, asked: dict[int, tuple[LVLM, Batch]], members: Sequence[Member]) -> dict[int, Tensor]:
        host, batches = next(iter(asked.values()))[0], [batch for _, batch in asked.values()]
        draws = [_generator(member.random) for member in members]
        known = [batch.features for batch in batches if batch.features is not None]
        with _serving(host, [self.layers[number] for number in asked], draws), handed(host, known):
            logits = host.call(_joined(batches), kept_positions(batches[0])).logits
        losses = [
            answer_loss(own[:, :-1], batch.labels)
            for own, batch in zip(logits.split(len(batches[0])), batches, strict=True)
        ]
        torch.autograd.backward(torch.stack(losses).sum())
        for draw, member in zip(draws, members, strict=True):
            member.random = draw.get_state()
        return {number: loss.detach() for number, loss in zip(asked, losses, strict=True)}


def plain_adapters(lvlm: LVLM) -> dict[str, Any]:
    """The layers with adapters, by name, where nothing else learns and all are LoRA's own on plain linear layers of the
    language model; empty where it is otherwise."""
    prefix = f"base_model.model.{lvlm.language_model}."
    layers = {name: m for name, m in lvlm.model.named_modules() if isinstance(m, LoraLinear)}
    learning = {name for name, p in lvlm.model.named_parameters() if p.requires_grad}
    known = {f"{name}.{part}.default.weight" for name in layers for part in ("lora_A", "lora_B")}
    plain = all(
        name.startswith(prefix)
        and type(layer.base_layer) is nn.Linear
        and not (layer.lora_variant or layer.merged or layer.disable_adapters)
        and layer.active_adapters == ["default"]
        for name, layer in layers.items()
    )
    by_itself = not any("forward" in vars(module) for module in lvlm.model.modules())  # as where layers are shared out
    return layers if plain and by_itself and learning == known else {}


def _generator(state: Tensor) -> torch.Generator:
    generator = torch.Generator()
    generator.set_state(state)
    return generator


def _alone(lvlm: LVLM, batch: Batch, member: Member) -> Tensor:
    torch.set_rng_state(member.random)
    loss = lvlm.loss(batch)
    torch.autograd.backward(loss)
    member.random = torch.get_rng_state()
    return loss.detach()


def _joined(batches: Sequence[Batch]) -> Batch:
    """Batches of one shape, one after the other; their features are handed over apart."""
    first = batches[0]
    tensors: dict[str, Any] = {
        name: torch.cat([getattr(batch, name) for batch in batches])
        for name in ("input_ids", "attention_mask", "labels", "roles", "indices")
    }
    if any(x.shape[1:] != first.pixels[name].shape[1:] for batch in batches for name, x in batch.pixels.items()):
        raise Entangled
    pixels = {name: torch.cat([batch.pixels[name] for batch in batches]) for name in first.pixels}
    return Batch(**tensors, pixels=pixels, images=())


@contextmanager
def _serving(host: LVLM, layers: Sequence[dict[str, Any]], draws: Sequence[torch.Generator]) -> Iterator[None]:
    """For the block, the host's language model computes for all trainings: linear layers training by training, with the
    adapters of each, and what these drop by each training's random numbers."""
    count = len(draws)

    def product(x: Tensor, layer: nn.Linear) -> Tensor:
        return torch.cat([F.linear(own, layer.weight, layer.bias) for own in x.chunk(count)])

    def dropped(x: Tensor, rate: float) -> Tensor:
        if not rate:
            return x
        kept = torch.empty_like(x)
        for draw, own in zip(draws, kept.chunk(count), strict=True):
            own.bernoulli_(1 - rate, generator=draw)
        return x * kept.div_(1 - rate)

    def adapted(name: str) -> Callable[..., Tensor]:
        layer = layers[0][name]
        rate, scale = getattr(layer.lora_dropout["default"], "p", 0.0), layer.scaling["default"]
        adapters = [[getattr(own[name], part)["default"].weight for part in ("lora_A", "lora_B")] for own in layers]

        def forward(x: Tensor) -> Tensor:
            base = product(x, layer.base_layer)  # first, as in peft: gradients are added up in the order of products
            rows = dropped(x, rate).chunk(count)
            change = [F.linear(F.linear(own, down), up) for own, (down, up) in zip(rows, adapters, strict=True)]
            found: Tensor = base + torch.cat(change) * scale
            return found

        return forward

    others: list[Any] = [*host.module(host.language_model).modules(), host.model.get_output_embeddings()]
    plain: list[Any] = [
        module for module in others if type(module) is nn.Linear
    ]  # those below adapters too, which no one calls
    try:
        for name, layer in layers[0].items():
            layer.forward = adapted(name)
        for module in plain:
            module.forward = partial(product, layer=module)
        yield
    finally:
        for module in (*layers[0].values(), *plain):
            vars(module).pop("forward", None)
