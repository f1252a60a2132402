"""Answers say whether they were cut off, and are none where the model's numbers are none."""

from __future__ import annotations

import pytest
import torch
from small_samples import mixed_samples
from tiny_models import tiny_random_llava

from arena.errors import ArenaError
from arena.lvlm.base import images_of


def test_an_answer_is_cut_where_the_limit_ended_it() -> None:
    lvlm, (sample,) = tiny_random_llava(), mixed_samples(1)
    config, size = lvlm.model.generation_config, (sample.image.height, sample.image.width)
    prompt = lvlm.encode_text(size, sample.question, None)
    batch = lvlm.collate([prompt], lvlm.pixel_inputs(images_of([sample])), [], torch.zeros(1))
    arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, **batch.pixels}
    config.eos_token_id = None
    said = lvlm.model.generate(**arguments, max_new_tokens=3, do_sample=False)[0, len(prompt.ids) :].tolist()
    unsaid = next(id for id in range(len(lvlm.tokenizer)) if id not in said)
    for ends, limit, cut in (
        (None, 3, True),
        (unsaid, 3, True),
        ([unsaid, said[0]], 3, False),
        (said[0], 1, False),  # the last token that it may say is the end
    ):
        config.eos_token_id = ends
        (answer,) = lvlm.answers([sample], limit)
        assert answer.cut is cut and [answer.text] == lvlm.generate([sample], limit)


@pytest.mark.parametrize("training", [True, False])
def test_logits_that_are_no_numbers_are_no_answer(training: bool) -> None:
    lvlm, samples = tiny_random_llava(), mixed_samples(2)
    lvlm.model.train(training)
    with torch.no_grad():
        lvlm.model.get_output_embeddings().weight[:] = float("nan")
    with pytest.raises(ArenaError, match=r"the model's logits are NaN: .*load it in dtype bfloat16 or float32"):
        lvlm.generate(samples)
    assert lvlm.model.training == training
