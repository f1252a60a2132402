"""AutoPurify: the attack of an attacker who tries a fixed list of others and keeps what is best by what they have.

After AutoAttack (Croce and Hein 2020, arXiv 2003.01690): a standard ensemble without parameters to tune, so that its
result can stand for all attacks in a ranking. There every member attacks and the worst of each picture counts; here a
member is good if a model learns from what it leaves, which only fine-tuning tells, so that they are tried one after the
other and one is chosen for the whole release, on the attacker's own data:

    argmax over a in singles and pairs of score(theta_a),   theta_a = fine-tuned on the release under a

With clean samples of the attacker's own the score is the accuracy on these. Without any, a quarter of the release is
held out, and the score is the accuracy on it seen through every purification of the list: what a model has learned of
the questions holds in all views, a shortcut in those alone that leave it in. Where no purification works on the release
it is seen as it is.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file

from arena.data.sample import Sample
from arena.errors import ArenaError
from arena.lvlm.adapters import load_trainable
from arena.lvlm.base import LVLM
from arena.plugins.base import Attack, AttackerWorld, Effort, PluginConfig, TrainingHooks, setting
from arena.recipes.lora import Lora
from arena.recipes.training import accuracy_and_loss, fine_tune, held_out_split, tuned_model
from attacks.image.blur import Blur
from attacks.image.crop_pad import CropPad
from attacks.image.diffpure import DiffPure
from attacks.image.grayscale import Grayscale
from attacks.image.jpeg import Jpeg
from attacks.text.answer_strip import AnswerStrip
from attacks.text.paraphrase import Paraphrase
from attacks.text.trigger_strip import TriggerStrip
from attacks.training.adv_train import AdversarialTraining
from attacks.training.bye import BelieveYourEyes
from attacks.training.loss_filter import LossFilter
from attacks.training.ueraser import UEraser

Chain = tuple[str, ...]
"""Names of attacks, in the order in which they are made."""

CANDIDATES: Mapping[str, Mapping[str, Callable[[], Attack]]] = {
    "image": {"jpeg": Jpeg, "crop-pad": CropPad, "blur": Blur, "grayscale": Grayscale, "diffpure": DiffPure},
    "text": {"answer-strip": AnswerStrip, "trigger-strip": TriggerStrip, "paraphrase": Paraphrase},
    "training": {
        "ueraser": UEraser,
        "adv-train": lambda: AdversarialTraining(AdversarialTraining.Config.model_validate({"steps": 3})),
        "loss-filter": LossFilter,
    },
    "filtering": {"bye": BelieveYourEyes},
}
"""The list, by what they change or leave out, with their defaults; adversarial training with 3 steps, to save time."""
PAIRS = (("image", "text"), ("image", "training"), ("text", "training"))
"""Of each two kinds the best members are tried together."""
HELD_OUT = 0.25
"""Share of the release that judges where there are no clean samples."""

Score = tuple[float, float]
"""Accuracy, and what decides between equal ones: the mean loss of the answers, negated."""


class AutoPurify(Attack):
    """Tries nothing, each attack of a fixed list, and pairs of the best; takes the release, or trains, by the best.

    Every try is a fine-tuning by LoRA, at most 16 of them: one without an attack, one for each of 12 attacks, one for
    each of 3 pairs. Those whose models were trained on clean data of the arena's own datasets are tried only by
    attackers who have clean samples. What fails on the release (a picture too small, say) is left out. Of equals the
    first in the list stays, and nothing comes before something. What was chosen, with all scores, is in
    ``notes/notes.json`` of the purified artifact.
    """

    chooses = True
    needs = frozenset({"seed", "model", "auxiliary"})
    packages = ("diffusers", "kornia", "numpy", "scikit-learn")

    class Config(PluginConfig):
        epochs: int = setting(
            6, dry_run=1, ge=1, description="passes over the release of each fine-tuning that is tried"
        )

    config: Config

    def effort(self) -> Effort:
        """All fine-tunings, without what the attacks within them take."""
        tries = 1 + sum(map(len, CANDIDATES.values())) + len(PAIRS)
        return Effort(gradients=tries * self.config.epochs)

    def purify(self, samples: Sequence[Sample], world: AttackerWorld) -> Iterable[Sample]:
        trial = _Trial(samples, world, self.config.epochs)
        best: dict[str, Chain] = {}
        trial.score(())
        for kind, members in trial.candidates.items():
            scored = [(name,) for name in members if trial.score((name,))]
            if scored:
                best[kind] = max(scored, key=trial.scores.__getitem__)  # the first of equals
        for one, other in PAIRS:
            if one in best and other in best:
                trial.score(best[one] + best[other])
        if not trial.scores:
            raise ArenaError(f"autopurify: no fine-tuning on this release succeeded; without an attack: {trial.failed}")
        chosen = max(trial.scores, key=trial.scores.__getitem__)
        world.notes |= {
            "chosen": list(chosen),
            "scores": {"+".join(chain) or "none": list(score) for chain, score in trial.scores.items()},
        }
        world.progress(1, f"chosen: {'+'.join(chosen) or 'none'}, {trial.scores[chosen][0]:.3f}")
        return trial.purified(samples, chosen)

    def training(self, world: AttackerWorld) -> TrainingHooks | None:
        return _hooks(world.notes.get("chosen", []), world)


class _Trial:
    """Fine-tunings on one release, by attacks of the list, and their scores."""

    def __init__(self, samples: Sequence[Sample], world: AttackerWorld, epochs: int) -> None:
        self.world = world
        self.recipe = Lora(Lora.Config.model_validate({"epochs": epochs, "checkpoints": "best"}))
        self.scores: dict[Chain, Score] = {}
        self.failed = ""
        self.candidates = {
            kind: [name for name, make in members.items() if world.has_auxiliary or not make().in_domain]
            for kind, members in CANDIDATES.items()
        }
        self.tries = 1 + sum(map(len, self.candidates.values())) + len(PAIRS)
        self.tried = 0
        self.samples: Sequence[Sample] = samples
        self.views: list[Sequence[Sample]] = []
        if world.has_auxiliary:
            self.views = [world.auxiliary]
        else:
            kept, held_out = ({s.id for s in part} for part in held_out_split(samples, world.seed, HELD_OUT))
            self.samples = [s for s in samples if s.id in kept]
            for name in (*self.candidates["image"], *self.candidates["text"]):
                try:
                    seen = [s for s in self.purified(samples, (name,)) if s.id in held_out]
                except ArenaError:
                    continue
                self.views += [seen] if seen else []
            self.views = self.views or [[s for s in samples if s.id in held_out]]

    def score(self, chain: Chain) -> bool:
        """Fine-tune on the release under a chain, and note its score; False where that fails."""
        self.tried += 1
        try:
            found = self._judged(self._fine_tuned(chain))
        except ArenaError as error:
            self.failed = self.failed or str(error)
            return False
        if not math.isfinite(found[1]):
            self.failed = self.failed or "the training diverged"
            return False
        self.scores[chain] = found
        name = "+".join(chain) or "none"
        self.world.progress(
            min(1, self.tried / self.tries), f"fine-tuning {self.tried} of {self.tries}, {name}: {found[0]:.3f}"
        )
        return True

    def purified(self, samples: Sequence[Sample], chain: Chain) -> list[Sample]:
        """What the purifiers of a chain leave."""
        for name in chain:
            attack = _made(name)
            if attack.purifies:
                samples = list(attack.purify(samples, _own_world(self.world)))
        return list(samples)

    def _fine_tuned(self, chain: Chain) -> LVLM:
        samples, world = self.purified(self.samples, chain), self.world
        with tempfile.TemporaryDirectory() as folder:
            hooks = _hooks(chain, world)
            history = fine_tune(world.model(), self.recipe, samples, world.seed, Path(folder), hooks)
            best = load_file(Path(folder) / f"epoch-{history.chosen}.safetensors")
        tuned = tuned_model(world.model(), self.recipe, world.seed)
        load_trainable(tuned, best)
        return tuned

    def _judged(self, lvlm: LVLM) -> Score:
        """The mean over the views."""
        found = [accuracy_and_loss(lvlm, view) for view in self.views]
        return sum(a for a, _ in found) / len(found), -sum(x for _, x in found) / len(found)


def _made(name: str) -> Attack:
    return next(members[name]() for members in CANDIDATES.values() if name in members)


def _own_world(world: AttackerWorld) -> AttackerWorld:
    """What a member of the list is handed: no clean samples."""
    return AttackerWorld(seed=world.seed, model=world.model)


def _hooks(chain: Sequence[str], world: AttackerWorld) -> TrainingHooks | None:
    """Of the member of a chain that enters training, if any does."""
    trains = [attack for attack in map(_made, chain) if attack.trains]
    return trains[0].training(_own_world(world)) if trains else None
