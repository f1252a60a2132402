"""A vision-language model as the arena sees it: samples in, a batch with roles, a loss, attention, answers out.

A family subclasses `LVLM` and says four things only: its pixel pipeline, how many image tokens a picture takes, its
chat template, and the names of its vision tower, projector and language model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.pixels import to_tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORE = -100


class Role(IntEnum):
    """What a position of the language model's sequence holds; template tokens belong to none of the paper's sets."""

    TEMPLATE = 0
    IMAGE = 1
    TEXT = 2
    TRIGGER = 3
    ANSWER = 4
    PADDING = 5


@dataclass(frozen=True)
class Batch:
    """Encoded samples, right-padded: ids, mask, labels and roles are long ``(B, L)``.

    `pixels` are the model's pixel arguments, `images` the raw pictures they came from, float ``(3, H, W)`` in [0, 1]
    of any
    size, and `indices` ``(B,)`` the samples' places in the list that was encoded.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    roles: Tensor
    pixels: dict[str, Tensor]
    images: tuple[Tensor, ...]
    indices: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)

    def positions(self, role: Role) -> Tensor:
        """Bool ``(B, L)``: where `role` stands."""
        return self.roles == role

    def to(self, device: torch.device | str) -> Batch:
        move = {k: getattr(self, k).to(device) for k in ("input_ids", "attention_mask", "labels", "roles", "indices")}
        pixels = {k: v.to(device) for k, v in self.pixels.items()}
        return replace(self, **move, pixels=pixels, images=tuple(x.to(device) for x in self.images))


@dataclass(frozen=True)
class Encoding:
    """One sample's tokens and their roles."""

    ids: list[int]
    roles: list[int]


@dataclass
class Forward:
    """What a forward pass gives: per-sample mean answer losses ``(B,)``, logits and labels of the last positions
    ``(B, T, V)`` and ``(B, T)``, and, where asked, attention by layer and the text embeddings ``(B, L, d)``."""

    losses: Tensor
    logits: Tensor
    labels: Tensor
    attention: dict[int, Tensor] = field(default_factory=dict)
    embeddings: Tensor | None = None


class LVLM(ABC):
    """A loaded model with its tokenizer and pixel pipeline."""

    family: ClassVar[str]
    vision_tower: ClassVar[str]
    """Dotted name of the module below `model` that turns pixels into features."""
    projector: ClassVar[str]
    """Dotted name of the module that maps features into the language model."""
    language_model: ClassVar[str]
    """Dotted name of the decoder stack."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model: Any = model  # or a peft or parallel wrapper around it
        self.tokenizer = tokenizer

    # What a family says

    @abstractmethod
    def template(self, question: str) -> tuple[str, str, str]:
        """The prompt around a question: what stands before the picture, between it and the question, and after."""

    @abstractmethod
    def answer_text(self, answer: str) -> str:
        """The response as it follows the prompt, with its end-of-turn token."""

    @abstractmethod
    def image_text(self, height: int, width: int) -> str:
        """The placeholder text of a picture of that size, one image token per feature of the tower."""

    @abstractmethod
    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """The model's pixel arguments for float pictures ``(3, H, W)`` in [0, 1], differentiable, 8-bit forward
        values."""

    @abstractmethod
    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        """Mean absolute value of a difference of two `pixel_inputs` over each image token's region, one ``(tokens,)``
        per picture,
        in units of [0, 1] pixel values (the rho of eq. 22)."""

    # What the arena builds on it

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    def module(self, name: str) -> nn.Module:
        """A part of the model by its dotted family name, also below a peft wrapper."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        module: nn.Module = base.get_submodule(name)
        return module

    def encode_text(
        self, size: tuple[int, int], question: str, answer: str | None, trigger: tuple[int, int] | None = None
    ) -> Encoding:
        """Tokens and roles of one exchange about a picture of `size` (height, width).

        `trigger` is the character span of the trigger in `question`. A token belongs to the part that holds its last
        character, so that the space before a word goes with the word. Without `answer` it is the prompt for generation.
        """
        before, between, after = self.template(question)
        start, stop = trigger or (len(question), len(question))
        parts = [
            (before, Role.TEMPLATE),
            (self.image_text(*size), Role.IMAGE),
            (between, Role.TEMPLATE),
            (question[:start], Role.TEXT),
            (question[start:stop], Role.TRIGGER),
            (question[stop:], Role.TEXT),
            (after, Role.TEMPLATE),
            ("" if answer is None else self.answer_text(answer), Role.ANSWER),
        ]
        text = "".join(part for part, _ in parts)
        role_of = [role for part, role in parts for _ in part]
        encoded = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=True)
        roles = [role_of[end - 1] if end > begin else Role.TEMPLATE for begin, end in encoded["offset_mapping"]]
        ids = list(encoded["input_ids"])
        image = self.image_token_id
        roles = [  # wrappers around the placeholders (<vision_start>, newlines) are template
            Role.IMAGE if i == image else Role.TEMPLATE if r == Role.IMAGE else r
            for i, r in zip(ids, roles, strict=True)
        ]
        return Encoding(ids, [int(r) for r in roles])

    def encode(
        self,
        samples: Sequence[Sample],
        images: Sequence[Tensor] | None = None,
        triggers: Sequence[tuple[int, int] | None] | None = None,
    ) -> Batch:
        """Samples with their answers as a batch; `images` replaces their pictures, `triggers` marks character spans."""
        images = [to_tensor(s.image).to(self.device) for s in samples] if images is None else images
        spans = triggers or [None] * len(samples)
        rows = [
            self.encode_text((x.shape[-2], x.shape[-1]), s.question, s.answer, span)
            for s, x, span in zip(samples, images, spans, strict=True)
        ]
        return self.collate(rows, self.pixel_inputs(images), images, torch.arange(len(samples)))

    def collate(
        self, rows: Sequence[Encoding], pixels: dict[str, Tensor], images: Sequence[Tensor], indices: Tensor
    ) -> Batch:
        """Right-pad encodings to a batch on the model's device."""
        shape = (len(rows), max(len(row.ids) for row in rows))
        ids = torch.full(shape, int(self.tokenizer.pad_token_id or 0))
        roles = torch.full(shape, int(Role.PADDING))
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            roles[i, : len(row.ids)] = torch.tensor(row.roles)
        labels = ids.masked_fill(roles != Role.ANSWER, IGNORE)
        mask = (roles != Role.PADDING).long()
        return Batch(ids, mask, labels, roles, pixels, tuple(images), indices).to(self.device)

    def with_images(self, batch: Batch, images: Sequence[Tensor]) -> Batch:
        """The same batch about other pictures of the same sizes; gradient flows to them."""
        return replace(batch, pixels=self.pixel_inputs(images), images=tuple(images))

    def forward(
        self,
        batch: Batch,
        attention_layers: Sequence[int] = (),
        attention_rows: Tensor | None = None,
        embeddings: bool = False,
    ) -> Forward:
        """Run the model.

        `attention_layers` are indices of language-model layers, `attention_rows` long ``(B, R)`` query positions (all
        where None);
        `embeddings` keeps the input embeddings with gradient. Logits are computed from just before the first answer
        token of the batch, not for the whole sequence.
        """
        first = int((batch.labels != IGNORE).int().argmax(1).min())
        keep = batch.input_ids.shape[1] - max(first - 1, 0)
        kept: list[Tensor] = []

        def keep_embeddings(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            kept.append(output)
            return output

        hook = self.model.get_input_embeddings().register_forward_hook(keep_embeddings) if embeddings else None
        attention: dict[int, Tensor] = {}
        try:
            if attention_layers:
                from arena.lvlm.probe import Probe, probing  # transformers is slow to import

                probe = Probe(frozenset(attention_layers), attention_rows, attention)
                with probing(self.module(self.language_model), probe):
                    output = self._call(batch, keep)
            else:
                output = self._call(batch, keep)
        finally:
            if hook is not None:
                hook.remove()
        logits, labels = output.logits[:, :-1], batch.labels[:, -keep:][:, 1:]
        token_losses = F.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none"
        ).view(labels.shape)
        losses = token_losses.sum(1) / (labels != IGNORE).sum(1).clamp(min=1)
        return Forward(losses, logits, labels, attention, kept[0] if kept else None)

    def _call(self, batch: Batch, keep: int) -> Any:
        return self.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            **batch.pixels,
            logits_to_keep=keep,
            use_cache=False,
        )

    def losses(self, batch: Batch) -> Tensor:
        """Mean cross entropy over each sample's answer tokens, ``(B,)``, in nats."""
        return self.forward(batch).losses

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross entropy over all answer tokens of the batch: what transformers computes from `labels`."""
        out = self.forward(batch)
        counts = (out.labels != IGNORE).sum(1)
        return (out.losses * counts).sum() / counts.sum().clamp(min=1)

    def attention(self, batch: Batch, layers: Sequence[int], rows: Tensor | None = None) -> dict[int, Tensor]:
        """Attention weights by layer, ``(B, heads, R, L)``."""
        return self.forward(batch, layers, rows).attention

    @torch.no_grad()
    def generate(self, samples: Sequence[Sample], max_new_tokens: int = 16, batch_size: int = 64) -> list[str]:
        """Greedy answers, decoded without special tokens and stripped, in order."""
        answers: list[str] = []
        pad = int(self.tokenizer.pad_token_id or 0)
        was_training = self.model.training
        self.model.eval()
        for at in range(0, len(samples), batch_size):
            part = samples[at : at + batch_size]
            images = [to_tensor(s.image).to(self.device) for s in part]
            rows = [
                self.encode_text((x.shape[-2], x.shape[-1]), s.question, None).ids
                for s, x in zip(part, images, strict=True)
            ]
            longest = max(map(len, rows))
            ids = torch.tensor([[pad] * (longest - len(r)) + r for r in rows], device=self.device)
            mask = torch.tensor([[0] * (longest - len(r)) + [1] * len(r) for r in rows], device=self.device)
            output = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **self.pixel_inputs(images),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
            )
            texts = self.tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True)
            answers += [text.strip() for text in texts]
        self.model.train(was_training)
        return answers

    def token_change(self, clean: Sequence[Tensor], released: Sequence[Tensor]) -> list[Tensor]:
        """rho of eq. 22: mean |delta| over the preprocessed region of each image token, ``(tokens,)`` per picture, in
        [0, 1]."""
        with torch.no_grad():
            before, after = self.pixel_inputs(clean), self.pixel_inputs(released)
            same = {k: after[k] - before[k] for k in after if after[k].is_floating_point()}
        return self.token_means(same)

    def perplexities(self, texts: Sequence[str], batch_size: int = 64) -> list[float]:
        """Perplexity of each text under the language model alone, without picture or template."""
        values: list[float] = []
        language, head = self.module(self.language_model), self.model.get_output_embeddings()
        for at in range(0, len(texts), batch_size):
            encoded = [self.tokenizer(t)["input_ids"] for t in texts[at : at + batch_size]]
            short = next((t for t, ids in zip(texts[at:], encoded, strict=False) if len(ids) < 2), None)
            if short is not None:
                raise ArenaError(f"perplexity: {short!r} has fewer than two tokens; give a longer text")
            longest = max(map(len, encoded))
            pad = int(self.tokenizer.pad_token_id or 0)
            ids = torch.tensor([r + [pad] * (longest - len(r)) for r in encoded], device=self.device)
            mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in encoded], device=self.device)
            with torch.no_grad():
                hidden = language(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                logits = head(hidden)[:, :-1].float()
            losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
            use = mask[:, 1:]
            values += ((losses * use).sum(1) / use.sum(1)).exp().tolist()
        return values


def images_of(samples: Sequence[Sample], device: torch.device | str = "cpu") -> list[Tensor]:
    """The samples' pictures as float tensors ``(3, H, W)`` in [0, 1]."""
    return [to_tensor(s.image).to(device) for s in samples]
