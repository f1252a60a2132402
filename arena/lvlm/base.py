"""A vision-language model as the arena sees it: samples in, a batch with roles, a loss, attention, answers out.

A family subclasses `LVLM` and says what is its own: its classes of transformers, its pixel pipeline, how many image
tokens a picture takes, its chat template, and the names of its vision tower, projector and language model. See
`arena.lvlm.families.llava` for the shortest one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.batch import IGNORE, Batch, Encoding, Forward, Role
from arena.lvlm.features import handed
from arena.lvlm.generation import Answer, greedy
from arena.lvlm.pixels import to_tensor
from arena.lvlm.shortcuts import FEWEST_ROWS, answer_rows, at_rows, patches_by_products
from arena.lvlm.tokens import Part, plain_ids, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class LVLM(ABC):
    """A loaded model of transformers with its tokenizer and picture processor.

    `encode(samples)` makes a `Batch`: token ids with labels and roles, the pixel arguments of the model, and the raw
    pictures. `with_images(batch, images)` puts other pictures into it, float tensors ``(3, H, W)`` in [0, 1], through
    which gradient flows. `losses(batch)` is the mean cross entropy of each sample's answer, ``(B,)``, and `loss(batch)`
    what transformers computes from labels, a scalar. `forward(batch, ...)` gives losses with logits, attention and
    embeddings, all differentiable; `attention(batch, layers)` the weights alone. `generate(samples)` answers greedily
    and returns strings. For example, the gradient of the loss by raw pixels::

        images = [x.requires_grad_() for x in images_of(samples, lvlm.device)]
        losses = lvlm.losses(lvlm.with_images(lvlm.encode(samples), images))
        gradients = torch.autograd.grad(losses.sum(), images)

    `model` is the `PreTrainedModel` itself, or a peft or parallel wrapper around it; `tokenizer` is a fast one, and
    `processor` the checkpoint's picture processor, of which only the settings are read.
    """

    family: ClassVar[str]
    """What error messages call it."""
    model_class: ClassVar[Any]
    """Transformers' class that a checkpoint is loaded by, with its `from_pretrained`."""
    processor_class: ClassVar[Any]
    """Transformers' class of the picture processor, of the backend on Pillow."""
    vision_tower: ClassVar[str]
    """Dotted name of the module below `model` that turns pixels into features."""
    projector: ClassVar[str]
    """Dotted name of the module that maps features into the language model."""
    language_model: ClassVar[str]
    """Dotted name of the decoder stack."""
    no_flash: ClassVar[str] = ""
    """Why flash attention would be wrong for this family; empty where it is right."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, processor: Any) -> None:
        self.model: Any = model
        self.tokenizer = tokenizer
        self.processor: Any = processor
        patches_by_products(self.module(self.vision_tower))

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        revision: str = "main",
        **loading: Any,
    ) -> Self:
        """Load a checkpoint in the hub's format, by folder or hub id, in evaluation mode; all parts of one `revision`.

        `loading` goes to transformers' `from_pretrained` of the model, such as ``attn_implementation="eager"``. Raises
        `ArenaError` where a part cannot be read, where weights are missing or of another shape, or where the device is
        not there.
        """
        from arena.lvlm.loading import load_parts  # transformers is slow to import

        if cls.no_flash and str(loading.get("attn_implementation", "")).startswith("flash"):
            raise ArenaError(f"model {str(checkpoint)!r}: {cls.family}'s {cls.no_flash}; set attention: sdpa")
        kinds = cls.model_class, cls.processor_class
        return cls(*load_parts(cls.family, *kinds, checkpoint, dtype, device, revision, **loading))

    # What a family says

    @abstractmethod
    def template(self, question: str) -> tuple[str, str, str]:
        """The prompt around a question: what stands before the picture, between it and the question, and after."""

    @abstractmethod
    def around_answer(self) -> tuple[str, str]:
        """What stands before and after an answer that follows the prompt; its end-of-turn token is in the latter."""

    @abstractmethod
    def image_text(self, height: int, width: int) -> str:
        """The placeholder text of a picture of that size in pixels, one image token for each feature of the tower."""

    @abstractmethod
    def pixel_inputs(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """The model's pixel arguments, on its device and in its type, for pictures, float ``(3, H, W)`` in [0, 1].

        Differentiable; the forward value is that of the family's processor on pictures rounded to 8 bits. Every
        argument has one row a picture, padded with NaN where it is float, so that differences can be taken.
        """

    @abstractmethod
    def token_means(self, change: dict[str, Tensor]) -> list[Tensor]:
        """The mean absolute value of a change over the region of each image token (the rho of eq. 22).

        `change` holds the differences of two `pixel_inputs`, by name; what comes back is one ``(tokens,)`` a picture,
        in units of [0, 1] pixel values.
        """

    # What the arena builds on it

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    def module(self, name: str) -> nn.Module:
        """A part of the model by its dotted name, such as `language_model`, also below a peft wrapper."""
        base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        module: nn.Module = base.get_submodule(name)
        return module

    def encode_text(
        self, size: tuple[int, int], question: str, answer: str | None, trigger: tuple[int, int] | None = None
    ) -> Encoding:
        """Tokens and roles of one exchange about a picture of `size` (height, width) in pixels.

        `trigger` is the character span (start, stop) of the trigger in `question`. A token belongs to the part that
        holds its last character, so that the space before a word goes with the word. Without `answer` it is the prompt
        for generation.
        """
        before, between, after = self.template(question)
        start, stop = trigger or (len(question), len(question))
        parts = [
            Part(before, Role.TEMPLATE),
            Part(self.image_text(*size), Role.IMAGE),
            Part(between, Role.TEMPLATE),
            Part(question[:start], Role.TEXT, said=True),
            Part(question[start:stop], Role.TRIGGER, said=True),
            Part(question[stop:], Role.TEXT, said=True),
            Part(after, Role.TEMPLATE),
            *([] if answer is None else self.answer_parts(answer)),
        ]
        (encoded,) = tokenize(self.tokenizer, [parts], special=True)
        image = self.image_token_id
        roles = [  # wrappers around the placeholders (<vision_start>, newlines) are template
            int(Role.TEMPLATE) if role == Role.IMAGE and id != image else role
            for id, role in zip(encoded.ids, encoded.roles, strict=True)
        ]
        return Encoding(encoded.ids, roles)

    def answer_parts(self, answer: str) -> list[Part]:
        """An answer with what its family writes around it, all of which a model learns to say."""
        before, after = self.around_answer()
        return [Part(before, Role.ANSWER), Part(answer, Role.ANSWER, said=True), Part(after, Role.ANSWER)]

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has, without any that stand around it: what a budget of tokens counts."""
        return [len(ids) for ids in plain_ids(self.tokenizer, texts, special=False)]

    def encode_sample(
        self, sample: Sample, size: tuple[int, int], answer: str | None, trigger: tuple[int, int] | None = None
    ) -> Encoding:
        """As `encode_text`, of a sample's question. Raises `ArenaError` naming a sample that the model cannot take."""
        try:
            return self.encode_text(size, sample.question, answer, trigger)
        except ArenaError as error:
            raise ArenaError(f"sample {sample.id!r}: {error}") from error

    def encode(
        self,
        samples: Sequence[Sample],
        images: Sequence[Tensor] | None = None,
        triggers: Sequence[tuple[int, int] | None] | None = None,
    ) -> Batch:
        """Samples with their answers as a batch on the model's device, `indices` counted from 0.

        `images`, float ``(3, H, W)`` in [0, 1] on that device, replace the samples' pictures; gradient flows to them.
        `triggers` are the character spans of the triggers in the questions, None for a question without.
        """
        images = [to_tensor(s.image).to(self.device) for s in samples] if images is None else images
        spans = triggers or [None] * len(samples)
        rows = [
            self.encode_sample(s, (x.shape[-2], x.shape[-1]), s.answer, span)
            for s, x, span in zip(samples, images, spans, strict=True)
        ]
        return self.collate(rows, self.inputs_of(images), images, torch.arange(len(samples)))

    def collate(
        self, rows: Sequence[Encoding], pixels: dict[str, Tensor], images: Sequence[Tensor], indices: Tensor
    ) -> Batch:
        """A batch on the model's device of what was made piece by piece: encodings, which are right-padded, the
        `pixel_inputs` of `images`, and `indices`, long ``(B,)``."""
        longest, pad = max(len(row.ids) for row in rows), int(self.tokenizer.pad_token_id or 0)
        ids = torch.tensor([row.ids + [pad] * (longest - len(row.ids)) for row in rows])
        roles = torch.tensor([row.roles + [int(Role.PADDING)] * (longest - len(row.ids)) for row in rows])
        labels = ids.masked_fill(roles != Role.ANSWER, IGNORE)
        mask = (roles != Role.PADDING).long()
        return Batch(ids, mask, labels, roles, pixels, tuple(images), indices).to(self.device)

    def inputs_of(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """As `pixel_inputs`; a picture that is there several times, as the same tensor, is prepared once."""
        first = {id(x): x for x in images}
        if len(first) == len(images):
            return self.pixel_inputs(images)
        places = {key: place for place, key in enumerate(first)}
        rows = torch.tensor([places[id(x)] for x in images])
        return {name: values[rows.to(values.device)] for name, values in self.pixel_inputs([*first.values()]).items()}

    def with_images(self, batch: Batch, images: Sequence[Tensor]) -> Batch:
        """The same batch about other pictures, through which gradient flows.

        `images` are float ``(3, H, W)`` in [0, 1], one for each of ``batch.images`` and of the same size.
        """
        return replace(batch, pixels=self.inputs_of(images), images=tuple(images), features=None)

    def forward(
        self,
        batch: Batch,
        attention_layers: Sequence[int] = (),
        attention_rows: Tensor | None = None,
        embeddings: bool = False,
        answers_only: bool = False,
    ) -> Forward:
        """Run the model on a batch whose sequences have answers.

        `attention_layers` are layers of the language model, counted from 0, whose attention weights are kept at the
        query positions `attention_rows`, long ``(B, R)``, or at all positions where it is None. `embeddings` keeps the
        input embeddings, with gradient. Logits are computed from just before the first answer token of the batch on,
        not for the whole sequence.

        `answers_only` leaves out what no answer depends on, see `at_rows`: logits are then ``(N, V)``, those that
        predict the answer tokens of all samples one after the other, and labels ``(N,)``. Losses, attention and
        gradients to pictures and embeddings are the same; gradients to weights may round otherwise.
        """
        keep = kept_positions(batch)
        rows = answer_rows(batch.labels)
        fewer = answers_only and min(keep, int(rows.sum())) >= FEWEST_ROWS
        kept: list[Tensor] = []

        def keep_embeddings(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            if not output.requires_grad:
                output = output.detach().requires_grad_()
            kept.append(output)
            return output

        hook = self.model.get_input_embeddings().register_forward_hook(keep_embeddings) if embeddings else None
        attention: dict[int, Tensor] = {}
        with ExitStack() as stack:
            if hook is not None:
                stack.callback(hook.remove)
            if attention_layers:
                from arena.lvlm.probe import Probe, probing  # transformers is slow to import

                probe = Probe(frozenset(attention_layers), attention_rows, attention)
                stack.enter_context(probing(self.module(self.language_model), probe))
            if fewer:
                stack.enter_context(at_rows(self, rows))
            output = self.call(batch, keep)
        labels = batch.labels[:, -keep:][:, 1:]
        logits = output.logits if fewer else output.logits[:, :-1]
        losses = mean_losses(logits, labels)
        if answers_only:
            logits, labels = logits if fewer else logits[labels != IGNORE], labels[labels != IGNORE]
        return Forward(losses, logits, labels, attention, kept[0] if kept else None)

    def call(self, batch: Batch, keep: int) -> Any:
        """The model's own output for a batch, with logits of the last `keep` positions."""
        known = batch.features
        with nullcontext() if known is None or not known.about(batch.pixels) else handed(self, [known]):
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
        return answer_loss(self.forward(batch).logits, batch.labels)

    def attention(self, batch: Batch, layers: Sequence[int], rows: Tensor | None = None) -> dict[int, Tensor]:
        """Attention weights by layer, ``(B, heads, R, L)``, differentiable; each row is a distribution over positions.

        `layers` and `rows` are the `attention_layers` and `attention_rows` of `forward`. Raises `ArenaError` where a
        family with other layers than plain self-attention has fewer than are asked for.
        """
        return self.forward(batch, layers, rows).attention

    def generate(self, samples: Sequence[Sample], max_new_tokens: int = 16, batch_size: int = 64) -> list[str]:
        """The texts of `answers`."""
        return [answer.text for answer in self.answers(samples, max_new_tokens, batch_size)]

    def answers(self, samples: Sequence[Sample], max_new_tokens: int = 16, batch_size: int = 64) -> list[Answer]:
        """Greedy answers of at most `max_new_tokens`, in order, and whether that limit cut them off.

        Answers of the samples are not read. The model is in evaluation mode meanwhile. Raises `ArenaError` where its
        logits are NaN.
        """
        return greedy(self, samples, max_new_tokens, batch_size)

    def perplexities(self, texts: Sequence[str], batch_size: int = 64) -> list[float]:
        """Perplexity of each text under the language model alone, without picture or template.

        Raises `ArenaError` for a text of fewer than two tokens.
        """
        values: list[float] = []
        language, head = self.module(self.language_model), self.model.get_output_embeddings()
        for at in range(0, len(texts), batch_size):
            encoded = plain_ids(self.tokenizer, texts[at : at + batch_size], special=True)
            short = next((t for t, ids in zip(texts[at:], encoded, strict=False) if len(ids) < 2), None)
            if short is not None:
                raise ArenaError(f"perplexity: {short!r} has fewer than two tokens; give a longer text")
            longest = max(map(len, encoded))
            pad = int(self.tokenizer.pad_token_id or 0)
            ids = torch.tensor([r + [pad] * (longest - len(r)) for r in encoded], device=self.device)
            mask = torch.tensor([[1] * len(r) + [0] * (longest - len(r)) for r in encoded], device=self.device)
            with torch.no_grad():
                hidden = language(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
                logits = head(hidden)[:, :-1].to(self.device).float()
            losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").view(len(ids), -1)
            use = mask[:, 1:]
            values += ((losses * use).sum(1) / use.sum(1)).exp().tolist()
        return values


def kept_positions(batch: Batch) -> int:
    """How many of the last positions give the logits that answers need: from just before the batch's first one."""
    first = int((batch.labels != IGNORE).int().argmax(1).min())
    return batch.input_ids.shape[1] - max(first - 1, 0)


def answer_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over all answer tokens, of logits ``(B, T, V)`` and labels ``(B, L)``: those of the positions
    after each of the logits', which are the last T."""
    labels = labels[:, -logits.shape[1] :]
    counts = (labels != IGNORE).sum(1)
    return (mean_losses(logits, labels) * counts).sum() / counts.sum().clamp(min=1)


def mean_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the answer tokens of each sample, ``(B,)``.

    `labels` are long ``(B, T)``, `IGNORE` at other tokens; `logits` ``(B, T, V)``, or ``(N, V)`` those of the answer
    tokens alone, in order.
    """
    is_answer = labels != IGNORE
    if logits.ndim == 3:
        losses = F.cross_entropy(
            logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORE, reduction="none"
        ).view(labels.shape)
    else:
        answers = F.cross_entropy(logits.float(), labels[is_answer], reduction="none")
        losses = answers.new_zeros(labels.shape).masked_scatter(is_answer, answers)
    return losses.sum(1) / is_answer.sum(1).clamp(min=1)


def images_of(samples: Sequence[Sample], device: torch.device | str = "cpu") -> list[Tensor]:
    """The samples' pictures as float tensors ``(3, H, W)`` in [0, 1]."""
    return [to_tensor(s.image).to(device) for s in samples]
