"""Training of the tiny LVLMs: tower on dense labels, then projector and language model, then everything.

(1) The vision tower alone learns to say what each quadrant of a scene holds (shape, colour, size and place), and of
what kind and colour a picture is that people made; trained end to end instead, it never learns shapes at this size.
(2) Tower frozen, the rest learns to answer questions, about few things first. Up to eight questions share one picture:
they follow it in one sequence, each seeing the picture and itself only. (3) Everything together, at a lower rate.

Most pictures arrive altered (`arena.lvlm.zoo.augmentation`); where their colours are lost, nobody asks for one. A part
of the questions carries random words, which are not answers, so that every word of the vocabulary has been seen.

Every batch is a function of (seed, stage, step), whoever makes it: a run that was killed goes on from its last
checkpoint, and on the same machine to the same weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from arena.data.colour_names import COLOURS
from arena.data.embedded import scenes
from arena.data.embedded.emoji.kinds import KINDS
from arena.files import atomically
from arena.lvlm.base import LVLM
from arena.lvlm.pixels import to_tensor
from arena.lvlm.zoo.augmentation import alter
from arena.lvlm.zoo.pictures import QUESTIONS, Picture, Pool
from arena.lvlm.zoo.tiny import TinyModel
from arena.lvlm.zoo.tokenizer import vocabulary

POOL = 20_000
"""Scenes that are drawn once, before training."""
ASKED_AT_ONCE = 8
PICTURES = {"tower": 0.3, "language": 0.3, "joint": 0.3}
"""Share of each batch that people made; the others are scenes."""
ASKED = {
    "language": ("count", "colour", "colour", "shape", "shape", "place", "place", "relation", "relation"),
    "joint": ("count", "count", "colour", "shape", "shape", "place", "place", "relation", "relation"),
}
"""What is asked about a scene, as far as it allows the question."""
CHECKPOINT_EVERY = 500
QUESTION_WEIGHT = 0.03
FOREIGN_WORDS = 0.3
"""Share of the questions that carry random words."""
CURRICULUM = 0.15
"""Share of the second stage that shows at most two things, so that words are tied to what they name before to where."""
_IGNORE = -100
_STAGES = ("tower", "language", "joint")
_QUADRANT = (len(scenes.SHAPES) + 1, len(scenes.COLOURS) + 1, 3, len(scenes.PLACES) + 1)
_PICTURE = (len(KINDS), len(COLOURS))
"""Classes of the tower's lesson, for each quadrant of a scene and for a picture."""


class ScenePool:
    """Scenes drawn once from a seed, with the dense labels of the tower's lesson."""

    def __init__(self, seed: int, size: int) -> None:
        rng = np.random.default_rng((seed, 0))
        self.scenes = [scenes.random_scene(rng) for _ in range(size)]
        colours = list(scenes.COLOURS)
        self.few = np.array([i for i, scene in enumerate(self.scenes) if len(scene.things) <= 2])
        self.labels = torch.zeros(size, 4, 4, dtype=torch.long)  # 0: empty; else 1 + index
        for i, scene in enumerate(self.scenes):
            for t in scene.things:
                facts = (scenes.SHAPES.index(t.shape), colours.index(t.colour), int(t.big), t.quadrant)
                self.labels[i, t.quadrant] = torch.tensor(facts) + 1


class Lesson:
    """Packs questions behind a picture: ids, positions, labels, loss weights and the block mask."""

    def __init__(self, spec: TinyModel, lvlm: LVLM) -> None:
        self.tokenizer = lvlm.tokenizer
        before, between, self.after = lvlm.template("")
        self.around_answer = lvlm.around_answer()
        picture = lvlm.image_text(spec.image_size, spec.image_size)
        self.prefix = list(lvlm.tokenizer(f"{before}{picture}{between}")["input_ids"])
        self.places = spec.beginning_positions(lvlm, torch.tensor(self.prefix))
        self.words = np.array(vocabulary())
        self._lvlm = lvlm
        self._encode = lru_cache(maxsize=4096)(partial(self.tokenizer.encode, add_special_tokens=False))

    def chunk(self, question: str, answer: str, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        """Token ids and loss weights of one exchange; inserted words carry no loss."""
        parts: list[tuple[str, float]] = [(question, QUESTION_WEIGHT)]
        if rng.random() < FOREIGN_WORDS:
            extra = " ".join(rng.choice(self.words, rng.integers(1, 6)))
            parts = [*parts, (f" {extra}", 0.0)] if rng.random() < 0.5 else [(f"{extra} ", 0.0), *parts]
        parts += [(self.after, QUESTION_WEIGHT), (answer.join(self.around_answer), 1.0)]
        ids: list[int] = []
        weights: list[float] = []
        for text, weight in parts:
            tokens = self._encode(text)
            ids += tokens
            weights += [weight] * len(tokens)
        weights[0] = 0.0  # the first word of a question cannot be foreseen
        return ids, weights

    def pixels(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The model's pixel arguments."""
        return self._lvlm.pixel_inputs([to_tensor(image) for image in images])

    def pack(self, exchanges: list[list[tuple[str, str]]], rng: np.random.Generator) -> dict[str, Tensor]:
        rows = [[self.chunk(q, a, rng) for q, a in row] for row in exchanges]
        start = len(self.prefix)
        length = start + max(sum(len(ids) for ids, _ in row) for row in rows)
        shape = (len(rows), length)
        ids, block = np.full(shape, int(self.tokenizer.pad_token_id or 0)), np.full(shape, -1)
        positions = np.zeros((*self.places.shape[:-1], *shape), int)
        labels, weights = np.full(shape, _IGNORE), np.zeros(shape, np.float32)
        ids[:, :start], block[:, :start] = self.prefix, 0
        positions[..., :start] = self.places.unsqueeze(-2)
        for i, row in enumerate(rows):
            at = start
            for number, (tokens, loss) in enumerate(row, 1):
                to = at + len(tokens)
                ids[i, at:to] = labels[i, at:to] = tokens
                weights[i, at:to], block[i, at:to] = loss, number
                positions[..., i, at:to] = range(start, start + len(tokens))
                at = to
        same = block[:, :, None] == block[:, None, :]
        allowed = (same | (block[:, None, :] == 0)) & np.tri(length, dtype=bool)
        packed = {"ids": ids, "positions": positions, "labels": labels, "weights": weights, "allowed": allowed[:, None]}
        return {name: torch.from_numpy(array) for name, array in packed.items()}

    def about_scene(self, scene: scenes.Scene, kinds: Sequence[str], rng: np.random.Generator) -> list[tuple[str, str]]:
        """Questions of `kinds` with answers, in random order, as far as the scene allows them."""
        order = [str(kind) for kind in rng.permutation(kinds)]
        return [qa for kind in order if (qa := scenes.ask(scene, kind, rng, tries=3)) is not None]


def of_colours(question: str, answer: str) -> bool:
    """Whether a question or its answer names a colour, or asks for one."""
    return not {"colour", *scenes.COLOURS, *COLOURS}.isdisjoint(f"{question} {answer}".replace("?", "").split())


class Batches(Dataset[dict[str, Any]]):
    """The batches of one stage by step, on the CPU; `DataLoader` makes them in processes of its own."""

    def __init__(
        self, spec: TinyModel, stage: str, steps: int, size: int, lesson: Lesson, scenes: ScenePool, pool: Pool
    ) -> None:
        self.spec, self.stage, self.steps, self.size = spec, stage, steps, size
        self.lesson, self.scenes, self.pool = lesson, scenes, pool

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        rng = np.random.default_rng((self.spec.seed, 1 + _STAGES.index(self.stage), step))
        made = round(PICTURES[self.stage] * self.size)
        simple = self.stage == "language" and step < CURRICULUM * self.steps
        drawn = rng.choice(self.scenes.few if simple else len(self.scenes.scenes), self.size - made)
        kinds = [str(kind) for kind in rng.choice(list(QUESTIONS), made)]
        pictures = [self.pool.draw(kind, rng) for kind in kinds]
        images = [*(self.scenes.scenes[i].image for i in drawn), *(self.pool.pictures[i].image for i in pictures)]
        altered = [alter(image, rng) for image in images]
        coloured = [colours for _, colours in altered]
        batch: dict[str, Any] = {"pixels": self.lesson.pixels([image for image, _ in altered])}
        if self.stage == "tower":
            return batch | self._labels(drawn, pictures, torch.tensor(coloured))
        asked = [self.lesson.about_scene(self.scenes.scenes[i], ASKED[self.stage], rng) for i in drawn]
        asked += [self.pool.exchanges(i, rng) for i in pictures]
        rows = [
            [qa for qa in row if known or not of_colours(*qa)][:ASKED_AT_ONCE]
            for row, known in zip(asked, coloured, strict=True)
        ]
        return batch | self.lesson.pack(rows, rng)

    def _labels(self, drawn: np.ndarray, pictures: list[int], coloured: Tensor) -> dict[str, Tensor]:
        """Of scenes' quadrants ``(scenes, 4, 4)`` and of pictures ``(pictures, 2)``; `_IGNORE` what is unknown."""
        quadrants = self.scenes.labels[torch.from_numpy(drawn)].clone()
        quadrants[~coloured[: len(drawn)], :, 1] = _IGNORE
        kinds, colours = list(KINDS), list(COLOURS)
        shown = [self.pool.pictures[i] for i in pictures]
        facts = [
            [
                _IGNORE if p.kind is None else kinds.index(p.kind),
                _IGNORE if p.colour is None else colours.index(p.colour),
            ]
            for p in shown
        ]
        labels = torch.tensor(facts, dtype=torch.long).view(-1, 2)
        labels[~coloured[len(drawn) :], 1] = _IGNORE
        return {"quadrants": quadrants, "pictures": labels}


class Training:
    """One tiny model on its way through the three stages, checkpointed in `folder`.

    Batches are made by `workers` processes, in this one where there are none.
    """

    def __init__(
        self,
        spec: TinyModel,
        folder: Path,
        pictures: Sequence[Picture],
        say: Callable[[str], None] = print,
        device: str = "cpu",
        workers: int = 0,
    ) -> None:
        self.spec, self.folder, self.say, self.workers = spec, folder, say, workers
        folder.mkdir(parents=True, exist_ok=True)
        self.lesson = Lesson(spec, spec.untrained())
        self.pool, self.pictures = ScenePool(spec.seed, POOL), Pool(list(pictures))
        self.lvlm = spec.untrained()
        self.model = self.lvlm.model.to(device).train()
        width = spec.vision["hidden_size"]
        self.heads = nn.ModuleDict(
            {"quadrants": nn.Linear(width, sum(_QUADRANT)), "pictures": nn.Linear(width, sum(_PICTURE))}
        ).to(device)

    def run(self) -> None:
        lvlm, spec = self.lvlm, self.spec
        projector, decoder = (list(lvlm.module(m).parameters()) for m in (lvlm.projector, lvlm.language_model))
        others = set(projector)  # which Qwen's towers contain
        tower = [p for p in lvlm.module(lvlm.vision_tower).parameters() if p not in others]
        language = [*projector, *decoder]
        self._stage("tower", spec.tower_steps, 96, 1.5e-3, [*tower, *self.heads.parameters()], self._tower_loss)
        self._stage("language", spec.language_steps, spec.batch_size, 2e-3, language, self._language_loss)
        self._stage("joint", spec.joint_steps, spec.batch_size, 7e-4, [*tower, *language], self._language_loss)

    def _tower_loss(self, batch: dict[str, Any]) -> Tensor:
        features = self.spec.patch_features(self.lvlm, batch["pixels"])
        half, count = self.spec.grid // 2, len(batch["quadrants"])
        quadrants = features[:count].unflatten(1, (2, half, 2, half)).mean((2, 4)).flatten(1, 2)
        logits = [
            *self.heads["quadrants"](quadrants).split(_QUADRANT, -1),
            *self.heads["pictures"](features[count:].mean(1)).split(_PICTURE, -1),
        ]
        labels = [*batch["quadrants"].unbind(-1), *batch["pictures"].unbind(-1)]
        return torch.stack([_known_loss(z, label) for z, label in zip(logits, labels, strict=True)]).sum()

    def _language_loss(self, batch: dict[str, Any]) -> Tensor:
        bias = torch.zeros(batch["allowed"].shape, device=batch["ids"].device)
        hidden = self.model.model(
            input_ids=batch["ids"],
            attention_mask=bias.masked_fill_(~batch["allowed"], torch.finfo(torch.float32).min),
            position_ids=batch["positions"],
            use_cache=False,
            **batch["pixels"],
        ).last_hidden_state
        weights = batch["weights"][:, 1:]
        use = weights > 0
        logits = self.model.lm_head(hidden[:, :-1][use])
        losses = nn.functional.cross_entropy(logits, batch["labels"][:, 1:][use], reduction="none")
        loss: Tensor = (losses * weights[use]).sum() / weights[use].sum()
        return loss

    def _stage(
        self,
        name: str,
        steps: int,
        batch_size: int,
        rate: float,
        parameters: list[nn.Parameter],
        loss: Callable[[dict[str, Any]], Tensor],
    ) -> None:
        for p in [*self.model.parameters(), *self.heads.parameters()]:
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        step = self._resume(name, optimizer)
        batches = Batches(self.spec, name, steps, batch_size, self.lesson, self.pool, self.pictures)
        mean: Tensor | None = None
        for batch in DataLoader(
            batches, None, sampler=range(step, steps), num_workers=self.workers, worker_init_fn=_alone
        ):
            for group in optimizer.param_groups:
                group["lr"] = rate * _one_cycle(step / steps)
            value = loss(_moved(batch, self.lvlm.device))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            mean = value.detach() if mean is None else 0.98 * mean + 0.02 * value.detach()
            if step % CHECKPOINT_EVERY == 0 or step == steps:
                self._checkpoint(name, step, optimizer)
                self.say(f"{self.spec.name} {name} {step}/{steps} loss {mean.item():.4f}")

    def _checkpoint(self, name: str, step: int, optimizer: torch.optim.Optimizer) -> None:
        """Model, heads and optimizer moments in one safetensors file, replaced atomically."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items() if k != "lm_head.weight"}
        tensors |= {f"heads.{k}": v for k, v in self.heads.state_dict().items()}
        for i, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
        with atomically(self.folder / f"{name}.safetensors") as partial:
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"step": json.dumps(step)})

    def _resume(self, name: str, optimizer: torch.optim.Optimizer) -> int:
        path = self.folder / f"{name}.safetensors"
        if not path.exists():
            return 0
        tensors = load_file(path)
        with safe_open(path, "pt") as file:
            step = int(json.loads(file.metadata()["step"]))
        part = _part(tensors, "model.")
        self.model.load_state_dict(part, strict=False)
        self.heads.load_state_dict(_part(tensors, "heads."))
        states: dict[int, dict[str, Tensor]] = {}
        for key, value in _part(tensors, "optimizer.").items():
            index, field = key.split(".", 1)
            states.setdefault(int(index), {})[field] = value
        optimizer.load_state_dict(optimizer.state_dict() | {"state": states})
        return step


def _alone(worker: int) -> None:
    """One thread a process that makes batches: they are many."""
    torch.set_num_threads(1)


def _moved(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch on the device, pixel arguments too."""
    return {k: _moved(v, device) if isinstance(v, dict) else v.to(device) for k, v in batch.items()}


def _known_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over what is known, zero where nothing is."""
    losses = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=_IGNORE, reduction="sum")
    return losses / (labels != _IGNORE).sum().clamp(min=1)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _one_cycle(done: float, warm: float = 0.06) -> float:
    """Linear warm-up, cosine decay; a factor on the learning rate."""
    return done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
