"""The fine-tuner's training loop, one for all recipes: transformers' Trainer, hooks for attacks, best epoch on a
held-out split."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.tensor import DTensor
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.adapters import load_trainable, trainable, trainable_state, with_model
from arena.lvlm.base import LVLM, images_of
from arena.lvlm.batch import IGNORE, Batch
from arena.lvlm.features import Features, Remembered, frozen_pictures
from arena.plugins.base import Recipe, TrainingHooks
from arena.recipes.config import TrainingConfig
from arena.recipes.packing import Member


@dataclass(frozen=True)
class Epoch:
    """What the fine-tuner saw after an epoch: mean training loss, and loss and accuracy on their own held-out split.
    The loss there is NaN where weights are no numbers, whether or not they took part."""

    loss: float
    held_out_loss: float
    held_out_accuracy: float


@dataclass(frozen=True)
class History:
    """All epochs, and the one kept: best held-out accuracy, ties to the lower held-out loss; counted from 0."""

    epochs: tuple[Epoch, ...]
    chosen: int


class _Samples(torch.utils.data.Dataset[int]):
    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        return index


class _Collator:
    """Indices to a batch: texts were encoded once, pictures become tensors and go through the pixel pipeline here, so
    that no more than a batch of them is held as floats. Where the model's part before the language model is frozen, its
    features can be remembered."""

    def __init__(self, lvlm: LVLM, samples: Sequence[Sample], remember: bool = False) -> None:
        self.lvlm = lvlm
        self.samples = samples
        self.features = Features() if remember else None
        self.rows = [lvlm.encode_sample(s, (s.image.height, s.image.width), s.answer) for s in samples]

    def batch(self, indices: Sequence[int]) -> Batch:
        images = images_of([self.samples[i] for i in indices], self.lvlm.device)
        rows = [self.rows[i] for i in indices]
        batch = self.lvlm.collate(rows, self.lvlm.pixel_inputs(images), images, torch.tensor(indices))
        known = None if self.features is None else Remembered.of(self.features, indices, batch.pixels)
        return replace(batch, features=known)

    def __call__(self, indices: Sequence[int]) -> dict[str, Any]:
        batch = self.batch(indices)
        return {name: getattr(batch, name) for name in batch.__dataclass_fields__}


class _HookedTrainer(Trainer):
    """Trainer with the arena's loss. What Trainer finds anew in each step by walking through all modules is found once
    where one process trains in float32."""

    lvlm: LVLM
    hooks: TrainingHooks
    member: Member | None = None
    learning: list[torch.nn.Parameter] | None = None
    """What learns, if it is known to stay the same objects on one device."""

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        if self.member is not None:
            return self.member.step(self.lvlm, _batch(inputs))
        if self.learning is None:
            loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
            return loss
        if not model.training:  # as a hook may have left it
            model.train()
        own: Tensor = self.compute_loss(model, inputs) / self.current_gradient_accumulation_steps
        torch.autograd.backward(own)
        return own.detach()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        batch = _batch(inputs)
        done = self.state.global_step / max(self.state.max_steps, 1)
        return self.hooks.loss(with_model(self.lvlm, model), batch, done)

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.learning is None:
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        return torch.nn.utils.clip_grad_norm_(self.learning, self.args.max_grad_norm)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0  # a count that nobody reads


def _forget_gradients(parameters: Sequence[torch.nn.Parameter], set_to_none: bool = True) -> None:
    """`Module.zero_grad` of a module in which just these parameters learn."""
    for parameter in parameters:
        parameter.grad = None


def _batch(inputs: dict[str, Any]) -> Batch:
    """What the collator gave, as it comes through the Trainer."""
    return Batch(**{**inputs, "images": tuple(inputs["images"])})


class _EachEpoch(TrainerCallback):
    def __init__(self, then: Callable[[float], None]) -> None:
        self.then = then

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.then(float(logs["loss"]))


def held_out_split(samples: Sequence[Sample], seed: int, share: float = 0.125) -> tuple[list[Sample], list[Sample]]:
    """The fine-tuner's own split into training and held-out samples; at least one of each.

    What stands several times stands on one side: else what is held out would be known by heart. Of the held-out samples
    each is there once, and the others are repeated, or left out, so that as many are trained on as where all differ.
    """
    if len(samples) < 2:
        raise ArenaError(f"fine-tuning needs at least 2 samples, the release after its attack has {len(samples)}")
    equal: dict[Hashable, list[int]] = {}
    for i, s in enumerate(samples):
        equal.setdefault((s.question, s.answer, s.image.mode, s.image.size, hash(s.image.tobytes())), []).append(i)
    groups = list(equal.values()) if len(equal) > 1 else [[i] for i in range(len(samples))]
    order = np.random.default_rng(seed).permutation(len(groups)).tolist()
    held_out = sorted(order[: max(1, round(share * len(groups)))])
    kept = sorted(i for g in set(order).difference(held_out) for i in groups[g])
    count = len(samples) - max(1, round(share * len(samples)))
    return [samples[i] for i in islice(cycle(kept), count)], [samples[groups[g][0]] for g in held_out]


@torch.no_grad()
def evaluate(lvlm: LVLM, collator: _Collator, batch_size: int = 64) -> tuple[float, float]:
    """Mean loss and share of samples whose every answer token is the most likely one."""
    losses, hits = [], []
    lvlm.model.eval()
    for at in range(0, len(collator.rows), batch_size):
        out = lvlm.forward(collator.batch(range(at, min(at + batch_size, len(collator.rows)))))
        losses.append(out.losses)
        hits.append(((out.logits.argmax(-1) == out.labels) | (out.labels == IGNORE)).all(1))
    lvlm.model.train()
    return float(torch.cat(losses).mean()), float(torch.cat(hits).float().mean())


def accuracy_and_loss(lvlm: LVLM, samples: Sequence[Sample]) -> tuple[float, float]:
    """Share of samples whose every answer token is the most likely one, and their mean loss."""
    loss, accuracy = evaluate(lvlm, _Collator(lvlm, samples))
    return accuracy, loss


def _state(lvlm: LVLM) -> dict[str, Tensor]:
    """As `trainable_state`, with the parameters that several processes share put together: all of them must ask."""
    shards = [p for p in trainable(lvlm).values() if isinstance(p, DTensor)]
    if not shards:
        return trainable_state(lvlm)
    return {n: (p.full_tensor() if isinstance(p, DTensor) else p).detach().cpu() for n, p in trainable(lvlm).items()}


def _accumulation(config: TrainingConfig, samples: int) -> int:
    """Steps per update of each process. The number of processes is no part of a cell's key, so it must change nothing:
    an update has the same samples, and none is seen twice to fill the last step of a process."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if config.gradient_accumulation % processes:
        raise ArenaError(
            f"{processes} processes cannot share the {config.gradient_accumulation} steps of an update: give the "
            f"recipe a gradient_accumulation that is a multiple of {processes}, and for the same update a smaller "
            "batch_size"
        )
    if processes > 1 and samples % (processes * config.batch_size):
        raise ArenaError(
            f"{processes} processes cannot share {samples} training samples evenly in steps of {config.batch_size}: "
            f"choose a batch_size or a number of samples so that what is left after an eighth is held out is a "
            f"multiple of {processes} x batch_size"
        )
    return config.gradient_accumulation // processes


def _name_layers_that_exist(model: Any) -> None:
    """FSDP wraps the layers that a model names, and refuses names of those that its configuration has not, such as the
    layers of CLIP's text tower in LLaVA."""
    present = {type(module).__name__ for module in model.modules()}
    model._no_split_modules = present.intersection(model._no_split_modules or ())


def fine_tune(
    lvlm: LVLM,
    recipe: Recipe,
    samples: Sequence[Sample],
    seed: int,
    folder: Path,
    hooks: TrainingHooks | None = None,
    progress: Callable[[float, str], None] | None = None,
    member: Member | None = None,
) -> History:
    """Fine-tune `lvlm` on `samples` by `recipe` and write ``epoch-N.safetensors`` and ``history.json`` into `folder`.

    As a `member` of a pack, whose recipe packs, it has its steps computed with those of others,
    see `arena.recipes.packing`.

    Under ``accelerate launch`` every process calls this with the same arguments and a folder of its own, see
    `arena.engine.launch`. Raises `ArenaError` for fewer than two samples, or for steps or samples that the processes
    cannot share evenly.
    """
    config = recipe.config
    if not isinstance(config, TrainingConfig):
        raise ArenaError(
            f"recipe {type(recipe).__name__}: its Config must derive from arena.recipes.config.TrainingConfig"
        )
    folder.mkdir(parents=True, exist_ok=True)
    set_seed(seed)
    tuned = recipe.prepare(lvlm)
    _name_layers_that_exist(tuned.module(""))
    training, held_out = held_out_split(samples, seed)
    remember = hooks is None and frozen_pictures(tuned)
    collate, judge = _Collator(tuned, training, remember), _Collator(tuned, held_out, remember)
    epochs: list[Epoch] = []
    best: dict[str, Tensor] = {}

    def after_epoch(loss: float) -> None:
        nonlocal best
        state = _state(tuned)
        epoch = Epoch(loss, *evaluate(tuned, judge))
        whole = all(bool(weight.isfinite().all()) for weight in state.values())
        epochs.append(epoch if whole else replace(epoch, held_out_loss=math.nan))
        if config.checkpoints == "all":
            save_file(state, folder / f"epoch-{len(epochs) - 1}.safetensors")
        if _best(epochs) == len(epochs) - 1:
            best = state
        if progress is not None:
            progress(len(epochs) / config.epochs, f"loss {loss:.3f}")

    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=_accumulation(config, len(training)),
        activation_checkpointing=config.gradient_checkpointing,
        bf16=config.precision == "bfloat16",
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=config.warmup_ratio,
        weight_decay=config.weight_decay,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # a diverged training must not look like a perfect one
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=tuned.device.type == "cpu",
        seed=seed,
    )
    if "WORLD_SIZE" not in os.environ:
        arguments._n_gpu = min(arguments.n_gpu, 1)  # of several GPUs the model is on one, or shared out over them
    trainer = _HookedTrainer(
        model=tuned.model,
        args=arguments,
        train_dataset=_Samples(len(training)),
        data_collator=collate,
        callbacks=[_EachEpoch(after_epoch)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.model_accepts_loss_kwargs = False  # the hook returns a mean, so accumulation divides it
    trainer.lvlm, trainer.hooks, trainer.member = tuned, hooks or TrainingHooks(), member
    tuned.model.train()
    if tuned.device.type == "cpu" and config.precision == "float32" and "WORLD_SIZE" not in os.environ:
        trainer.learning = [p for p in tuned.model.parameters() if p.requires_grad]
        tuned.model.zero_grad = partial(_forget_gradients, trainer.learning)
    trainer.train()
    vars(tuned.model).pop("zero_grad", None)
    history = History(tuple(epochs), _best(epochs))
    if config.checkpoints == "best":
        save_file(best, folder / f"epoch-{history.chosen}.safetensors")
    text = json.dumps({"chosen": history.chosen, "epochs": [asdict(e) for e in epochs]}, indent=1)
    (folder / "history.json").write_text(text, encoding="utf-8")
    return history


def _best(epochs: Sequence[Epoch]) -> int:
    return max(range(len(epochs)), key=lambda i: (epochs[i].held_out_accuracy, -epochs[i].held_out_loss))


def read_history(folder: Path) -> History:
    """What `fine_tune` wrote."""
    document = json.loads((folder / "history.json").read_text(encoding="utf-8"))
    return History(tuple(Epoch(**e) for e in document["epochs"]), int(document["chosen"]))


def kept_epochs(folder: Path) -> list[int]:
    """The epochs whose weights are in the folder, in order."""
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob("epoch-*.safetensors"))


def tuned_model(lvlm: LVLM, recipe: Recipe, seed: int) -> LVLM:
    """A base model prepared as `fine_tune` prepared it, to load epochs into."""
    set_seed(seed)
    return recipe.prepare(lvlm)


def load_epoch(tuned: LVLM, folder: Path, epoch: int) -> None:
    """Put the weights of an epoch into a model from `tuned_model`."""
    load_trainable(tuned, load_file(folder / f"epoch-{epoch}.safetensors"))
