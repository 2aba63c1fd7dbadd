"""A network as small as can be, and data for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import nn

from romexp.editors.learned.base import EditNetwork, shapes_of
from romexp.editors.learned.factors import EditFactors
from romexp.editors.targets import edit_text
from romexp.facts import Case, EditRequest
from romexp.learning.draws import Draws
from romexp.learning.edits import EditPool, TrainingEdit
from romexp.learning.locality import LocalityTexts
from romexp.learning.session import Session
from romexp.learning.training import Training
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta

TEXTS = (
    "The Eiffel Tower is located in Paris, and the Space Needle is in Seattle.",
    "Steve Jobs was the founder of Apple.",
    "The company which makes the phone was bought by a bank.",
    "Paris, Paris!",
    "The mother tongue of Danielle Darrieux is French.",
    "Zoë plays the piano in Zürich.",
)
SUBJECTS = ("Anna", "Bob", "Steve Jobs", "Danielle", "Édouard", "Zoë", "The bank", "Müller")


class StepNetwork(EditNetwork):
    """ΔW = -α ∇W: a gradient step with one learned step size a matrix, 0 at birth."""

    kind: ClassVar[str] = "mend"

    def __init__(self, shapes: Mapping[str, tuple[int, int]], step: float = 0.0) -> None:
        super().__init__(shapes)
        self.steps = nn.Parameter(torch.full((len(shapes),), step))

    @property
    def sizes(self) -> dict[str, Any]:
        return {}

    def forward(self, factors: EditFactors) -> list[WeightDelta]:
        named = list(zip(self.steps, self.edited, strict=True))
        return [
            WeightDelta(
                terms={
                    name: LowRank(left=-step * factors.inputs[name][i].T, right=factors.gradients[name][i].T)
                    for step, name in named
                }
            )
            for i in range(len(factors))
        ]


def step_network(lm: LanguageModel, step: float = 0.0, layers: tuple[int, ...] = (2, 3)) -> StepNetwork:
    names = tuple(f"{lm.architecture.mlp_out_name(layer)}.weight" for layer in layers)
    return StepNetwork(shapes_of(lm, names), step)


def edits(lm: LanguageModel, subjects: tuple[str, ...]) -> tuple[TrainingEdit, ...]:
    """Each subject comes to play the violin."""
    return tuple(
        TrainingEdit(
            subject=subject,
            text=edit_text(lm, f"{subject} plays the", "violin"),
            rephrasings=(
                edit_text(lm, f"It is said that {subject} plays the", "violin"),
                edit_text(lm, f"In the north {subject} plays the", "violin"),
            ),
            neighbors=("Müller plays the piano", "The bank plays the piano"),
        )
        for subject in subjects
    )


def a_pool(lm: LanguageModel) -> EditPool:
    return EditPool(training=edits(lm, SUBJECTS[:5]), validation=edits(lm, SUBJECTS[5:]))


def locality(lm: LanguageModel, neighbors: float = 0.5) -> LocalityTexts:
    return LocalityTexts(lm=lm, training=TEXTS[:4], validation=TEXTS[4:], max_tokens=12, neighbors=neighbors)


def draws(lm: LanguageModel, *, seed: int = 0, outers: int = 1, locality_texts: int = 1) -> Draws:
    return Draws(edits=a_pool(lm), locality=locality(lm), seed=seed, outers=outers, locality_texts=locality_texts)


def training(**settings: Any) -> Training:
    few = {"lr": 0.5, "lr_lr": 0.0, "steps": 12, "accumulate": 1, "validate_every": 4, "log_every": 3, "cedit": 1.0}
    return Training(**few | {"validation_edits": 3, "validation_batch": 2} | settings)


def session(lm: LanguageModel, *, network: EditNetwork | None = None, **settings: Any) -> Session:
    state = settings.pop("state", None)
    network = network if network is not None else step_network(lm)
    return Session(lm=lm, network=network, draws=draws(lm), training=training(**settings), state=state)


@dataclass
class Kept:
    """Reports that remember; `stop_at` ends the run there as a kill would."""

    points: list[dict[str, float]] = field(default_factory=list)
    bests: list[dict[str, torch.Tensor]] = field(default_factory=list)
    done: list[int] = field(default_factory=list)
    stop_at: int | None = None

    def progress(self, step: int, steps: int) -> None:
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.done.append(step)

    def values(self, values: Mapping[str, float]) -> None:
        self.points.append(dict(values))

    def best(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        self.bests.append({name: value.clone() for name, value in network.state_dict().items()} | dict(values))

    def column(self, name: str) -> list[float]:
        return [point[name] for point in self.points if name in point]


def case(case_id: int, subject: str, **changes: Any) -> Case:
    request = EditRequest(
        subject=subject, prompt="{} plays the", target_new=changes.pop("target", "violin"), target_true="piano"
    )
    prompts = {"paraphrase_prompts": (f"It is said that {subject} plays the",), "neighborhood_prompts": ("Bob is",)}
    return Case(case_id=case_id, request=request, **prompts | changes)
