"""The tiny models: their sizes and their seeds. Their weights come with the arena; `arena zoo train` makes them
anew."""

from __future__ import annotations

from arena.lvlm.families.idefics3.tiny import Idefics3Spec
from arena.lvlm.families.llava.tiny import LlavaSpec
from arena.lvlm.families.qwen_vl.tiny import Qwen3VLSpec
from arena.lvlm.zoo.tiny import TinyModel

TINY: dict[str, TinyModel] = {
    "tiny-llava": LlavaSpec(
        "tiny-llava",
        seed=31,
        vocab_size=2465,
        image_size=64,
        patch_size=16,
        vision={"hidden_size": 96, "num_hidden_layers": 3, "heads": 4},
        text={"hidden_size": 96, "num_hidden_layers": 4, "heads": 6},
    ),
    "tiny-llava-48": LlavaSpec(
        "tiny-llava-48",
        seed=23,
        vocab_size=2465,
        image_size=48,
        patch_size=12,
        vision={"hidden_size": 80, "num_hidden_layers": 4, "heads": 4},
        text={"hidden_size": 112, "num_hidden_layers": 4, "heads": 4},
        joint_steps=6500,
    ),
    "tiny-qwen3-vl": Qwen3VLSpec(
        "tiny-qwen3-vl",
        seed=37,
        vocab_size=2840,
        image_size=64,
        patch_size=8,
        vision={"hidden_size": 96, "num_hidden_layers": 3, "heads": 4, "deepstack": 0},
        text={"hidden_size": 96, "num_hidden_layers": 4, "heads": 6},
        joint_steps=1500,
    ),
    "tiny-idefics3": Idefics3Spec(
        "tiny-idefics3",
        seed=41,
        vocab_size=2455,
        image_size=64,
        patch_size=8,
        vision={"hidden_size": 96, "num_hidden_layers": 3, "heads": 4},
        text={"hidden_size": 96, "num_hidden_layers": 4, "heads": 6},
        joint_steps=5000,
    ),
}
