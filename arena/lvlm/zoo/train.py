"""Training of the tiny LVLMs: tower on dense labels, then projector and language model, then everything.

(1) The vision tower alone learns to say, for each quadrant, what it holds: shape, colour, size and place; trained end
to end instead, it never learns shapes at this size. (2) Tower frozen, the rest learns to answer questions, about few
things first. Eight questions share one picture: they follow it in one sequence, each seeing the picture and itself
only. (3) Everything together, at a lower rate. A part of the pictures passes through JPEG, as pictures from the web
have, and a part of the questions carries random words, so that every word of the vocabulary has been seen.

Every batch is a function of (seed, stage, step): a run that was killed goes on from its last checkpoint to the same
weights.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from arena.data.embedded import scenes
from arena.files import atomically
from arena.lvlm.base import LVLM
from arena.lvlm.zoo.tiny import TinyModel
from arena.lvlm.zoo.tokenizer import words

POOL = 20_000
QUESTIONS_PER_SCENE = 8
KINDS = {
    "language": ("count", "colour", "colour", "shape", "shape", "place", "place", "relation", "relation"),
    "joint": ("count", "count", "colour", "shape", "shape", "shape", "place", "relation"),
}
"""What is asked about a scene, as far as it allows the question."""
CHECKPOINT_EVERY = 500
QUESTION_WEIGHT = 0.03
CURRICULUM = 0.15
"""Share of the second stage that shows at most two things, so that words are tied to what they name before to where."""
_IGNORE = -100


class ScenePool:
    """Scenes drawn once from a seed, with the dense labels of the tower's lesson; `resample` is the filter by which
    the model's processor enlarges them."""

    def __init__(self, seed: int, size: int, side: int, resample: int) -> None:
        self.side, self.resample = side, resample
        rng = np.random.default_rng((seed, 0))
        self.scenes = [scenes.random_scene(rng) for _ in range(size)]
        colours = list(scenes.COLOURS)
        self.few = np.array([i for i, scene in enumerate(self.scenes) if len(scene.things) <= 2])
        self.labels = torch.zeros(size, 4, 4, dtype=torch.long)  # 0: empty; else 1 + index
        for i, scene in enumerate(self.scenes):
            for t in scene.things:
                facts = (scenes.SHAPES.index(t.shape), colours.index(t.colour), int(t.big), t.quadrant)
                self.labels[i, t.quadrant] = torch.tensor(facts) + 1

    def pixels(self, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """uint8 ``(B, side, side, 3)``; a quarter of them through JPEG of random quality."""
        pictures = [
            _jpeg(self.scenes[i].image, int(rng.integers(10, 91))) if rng.random() < 0.25 else self.scenes[i].image
            for i in indices
        ]
        return np.stack([np.asarray(p.resize((self.side, self.side), self.resample)) for p in pictures])


def _jpeg(picture: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


class Lesson:
    """Packs questions behind a picture: ids, positions, labels, loss weights and the block mask."""

    def __init__(self, spec: TinyModel, lvlm: LVLM) -> None:
        self.tokenizer = lvlm.tokenizer
        before, between, self.after = lvlm.template("")
        self.around_answer = lvlm.around_answer()
        picture = lvlm.image_text(spec.image_size, spec.image_size)
        self.prefix = list(lvlm.tokenizer(f"{before}{picture}{between}")["input_ids"])
        self.places = spec.beginning_positions(lvlm, torch.tensor(self.prefix))
        self.words, self.sayable = words(), spec.sayable()
        self.kinds: tuple[str, ...] = ()
        self._encode = lru_cache(maxsize=4096)(partial(self.tokenizer.encode, add_special_tokens=False))

    def chunk(self, question: str, answer: str, rng: np.random.Generator) -> tuple[list[int], list[int], list[float]]:
        """Token ids, labels and weights of one exchange; inserted words carry no loss."""
        parts: list[tuple[str, float]] = [(question, QUESTION_WEIGHT)]
        if rng.random() < 0.25:
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
        return ids, ids, weights

    def pack(self, exchanges: list[list[tuple[str, str]]], rng: np.random.Generator) -> dict[str, Tensor]:
        rows = [[self.chunk(q, a, rng) for q, a in row] for row in exchanges]
        start = len(self.prefix)
        length = start + max(sum(len(ids) for ids, _, _ in row) for row in rows)
        shape = (len(rows), length)
        ids, block = torch.full(shape, int(self.tokenizer.pad_token_id or 0)), torch.full(shape, -1)
        positions = torch.zeros(*self.places.shape[:-1], *shape, dtype=torch.long)
        labels, weights = torch.full(shape, _IGNORE), torch.zeros(shape)
        ids[:, :start], block[:, :start] = torch.tensor(self.prefix), 0
        positions[..., :start] = self.places.unsqueeze(-2)
        for i, row in enumerate(rows):
            at = start
            for number, (tokens, targets, loss) in enumerate(row, 1):
                to = at + len(tokens)
                ids[i, at:to], labels[i, at:to], weights[i, at:to] = map(torch.tensor, (tokens, targets, loss))
                positions[..., i, at:to], block[i, at:to] = torch.arange(start, start + len(tokens)), number
                at = to
        same = block[:, :, None] == block[:, None, :]
        allowed = (same | (block[:, None, :] == 0)) & torch.ones(length, length).tril().bool()
        return {
            "ids": ids,
            "positions": positions,
            "labels": labels,
            "weights": weights,
            "allowed": allowed[:, None],
        }

    def exchanges(self, scene: scenes.Scene, rng: np.random.Generator) -> list[tuple[str, str]]:
        kinds = [str(k) for k in rng.permutation(self.kinds)]
        found = [qa for kind in kinds if (qa := scenes.ask(scene, kind, rng, tries=3)) is not None]
        found = found[: QUESTIONS_PER_SCENE - 1]
        while len(found) < QUESTIONS_PER_SCENE:
            word = str(rng.choice(self.sayable))
            found.append((f"say the word {word}.", word))
        return found


class Training:
    """One tiny model on its way through the three stages, checkpointed in `folder`."""

    def __init__(self, spec: TinyModel, folder: Path, say: Callable[[str], None] = print) -> None:
        self.spec, self.folder, self.say = spec, folder, say
        folder.mkdir(parents=True, exist_ok=True)
        self.lvlm = spec.untrained()
        self.model = self.lvlm.model.train()
        self.lesson = Lesson(spec, self.lvlm)
        self.pool = ScenePool(spec.seed, POOL, spec.image_size, spec.image_processor().resample)
        self.heads = nn.Linear(spec.vision["hidden_size"], sum(self._classes))

    _classes = (len(scenes.SHAPES) + 1, len(scenes.COLOURS) + 1, 3, len(scenes.PLACES) + 1)

    def run(self) -> None:
        lvlm = self.lvlm
        projector, decoder = (list(lvlm.module(m).parameters()) for m in (lvlm.projector, lvlm.language_model))
        others = set(projector)  # which Qwen's towers contain
        tower = [p for p in lvlm.module(lvlm.vision_tower).parameters() if p not in others]
        language = [*projector, *decoder]
        self._stage("tower", self.spec.tower_steps, 64, 1.5e-3, [*tower, *self.heads.parameters()], self._tower_loss)
        self._stage("language", self.spec.language_steps, 16, 2e-3, language, self._language_loss)
        self._stage("joint", self.spec.joint_steps, 16, 5e-4, [*tower, *language], self._language_loss)

    def _pixels(self, indices: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
        """The model's pixel arguments for scenes of the pool."""
        pictures = torch.from_numpy(self.pool.pixels(indices, rng)).permute(0, 3, 1, 2).float() / 255
        return self.lvlm.pixel_inputs(list(pictures))

    def _tower_loss(self, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        features = self.spec.patch_features(self.lvlm, self._pixels(indices, rng))
        half = self.spec.grid // 2
        quadrants = features.unflatten(1, (2, half, 2, half)).mean((2, 4)).flatten(1, 2)
        logits = self.heads(quadrants).split(self._classes, -1)
        labels = self.pool.labels[torch.from_numpy(indices)]
        losses = [nn.functional.cross_entropy(z.flatten(0, 1), labels[..., k].flatten()) for k, z in enumerate(logits)]
        return torch.stack(losses).sum()

    def _language_loss(self, indices: np.ndarray, rng: np.random.Generator) -> Tensor:
        batch = self.lesson.pack([self.lesson.exchanges(self.pool.scenes[i], rng) for i in indices], rng)
        bias = torch.zeros(batch["allowed"].shape).masked_fill(~batch["allowed"], torch.finfo(torch.float32).min)
        hidden = self.model.model(
            input_ids=batch["ids"],
            attention_mask=bias,
            position_ids=batch["positions"],
            use_cache=False,
            **self._pixels(indices, rng),
        ).last_hidden_state
        weights = batch["weights"][:, 1:]
        use = weights > 0
        logits = self.model.lm_head(hidden[:, :-1][use])
        losses = nn.functional.cross_entropy(logits, batch["labels"][:, 1:][use], reduction="none")
        return (losses * weights[use]).sum() / weights[use].sum()

    def _stage(
        self,
        name: str,
        steps: int,
        batch_size: int,
        rate: float,
        parameters: list[nn.Parameter],
        loss: Callable[[np.ndarray, np.random.Generator], Tensor],
    ) -> None:
        for p in [*self.model.parameters(), *self.heads.parameters()]:
            p.requires_grad_(False)
        for p in parameters:
            p.requires_grad_(True)
        optimizer = torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
        step = self._resume(name, optimizer)
        self.lesson.kinds = KINDS.get(name, ())
        mean = math.nan
        while step < steps:
            for group in optimizer.param_groups:
                group["lr"] = rate * _one_cycle(step / steps)
            rng = np.random.default_rng((self.spec.seed, 1 + sum(map(ord, name)), step))
            simple = name == "language" and step < CURRICULUM * steps
            value = loss(rng.choice(self.pool.few if simple else POOL, batch_size), rng)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            step += 1
            mean = value.item() if math.isnan(mean) else 0.98 * mean + 0.02 * value.item()
            if step % CHECKPOINT_EVERY == 0 or step == steps:
                self._checkpoint(name, step, optimizer)
                self.say(f"{self.spec.name} {name} {step}/{steps} loss {mean:.4f}")

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


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _one_cycle(done: float, warm: float = 0.06) -> float:
    """Linear warm-up, cosine decay; a factor on the learning rate."""
    return done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))
