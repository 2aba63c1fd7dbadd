"""What the demo's buttons do, without a page: edits, texts, traces and exports of one visitor at a time."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import pandas as pd
from hydra.utils import instantiate
from matplotlib.figure import Figure

import romexp
from romexp.api.before_after import answers, continuations, kept_texts
from romexp.api.edits import FactEdit
from romexp.api.models import LoadedModel
from romexp.api.request import make_request
from romexp.compose import compose_config, options
from romexp.errors import ConfigError

TRACES: Mapping[str, Mapping[str, Any]] = {
    "estimated, in seconds": {"method": "attribution", "severed": False},
    "exact, up to a minute": {"severed": False},
}
"""Settings of the tracer by what a visitor chooses."""
ANSWERS = ["", "answer", "before", "after"]
NEXT_TOKENS = ["before", "P before", "after", "P after"]
TEXTS = ["", "text", "before", "after"]
KEPT = ["", "text", "next token", "P before", "P after"]
COMPARED = ["method", "P(new) before", "P(new) after", "P(old) after", "others moved by (points)", "seconds"]
"""The columns of the tables."""


@dataclass(frozen=True, kw_only=True)
class ExampleFact:
    """What the form holds at first, and the texts that are shown beside a visitor's own.

    Attributes:
        prompt, subject, target: the fact; the prompt has `{}` for the subject.
        ask: texts about this subject; `{}` stands for it.
        about: texts about any other subject.
        keep: texts about others, which should not change.
    """

    prompt: str
    subject: str
    target: str
    ask: Sequence[str]
    about: Sequence[str]
    keep: Sequence[str]


@dataclass(kw_only=True)
class Workbench:
    """The models of the demo. What visitors make is in the values that they get; nothing of it is kept here.

    One visitor at a time works on a model: a lock is held meanwhile, since measurements may write weights for a moment.

    Attributes:
        loaders: by the model's name, what loads it. A model is loaded when somebody first asks for it.
        folder: where exports are written. Who makes the workbench removes it.
        tokens: number of new tokens of a continuation.
    """

    loaders: Mapping[str, Callable[[], LoadedModel]]
    folder: Path
    tokens: int = 20
    _loaded: dict[str, LoadedModel] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @contextmanager
    def _model(self, name: str) -> Iterator[LoadedModel]:
        if name not in self.loaders:
            raise ConfigError(f"there is no model {name!r} here")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self.loaders[name]()
            yield self._loaded[name]

    def example(self, name: str) -> ExampleFact:
        """The fact that the form holds at first for a model."""
        known = [f"model={name}"] if name in options("model") else ["model=hf", "model.path=none"]
        found = instantiate(compose_config(["task=try", *known]).task.example)
        return ExampleFact(
            prompt=found.prompt, subject=found.subject, target=found.target,
            ask=tuple(found.ask), about=tuple(found.about), keep=tuple(found.keep),
        )  # fmt: skip

    def edit(self, name: str, *, prompt: str, subject: str, target: str, method: str) -> FactEdit:
        """Tell a model one fact.

        Raises:
            RomexpError: the fact cannot be edited.
        """
        request = make_request(prompt, subject, target)
        with self._model(name) as lm:
            return romexp.edit(lm, request.prompt, subject=request.subject, target=request.target_new, method=method)

    def answers(self, name: str, edit: FactEdit) -> tuple[pd.DataFrame, pd.DataFrame]:
        """P(old answer) and P(new answer), and the likeliest next tokens; before and after the edit."""
        with self._model(name) as lm:
            found = answers(lm, edit.delta, edit.request.text, target=edit.request.target_new)
        asked = pd.DataFrame(
            [["new", found.new, *map(percent, found.p_new)], ["old", found.old, *map(percent, found.p_old)]],
            columns=ANSWERS,
        )
        top = pd.DataFrame(
            [
                [*_token(before), *_token(after)]
                for before, after in zip(found.top_before, found.top_after, strict=True)
            ],
            columns=NEXT_TOKENS,
        )
        return asked, top

    def texts(self, name: str, edit: FactEdit, prompts: Sequence[str]) -> pd.DataFrame:
        """How both models continue some texts."""
        with self._model(name) as lm:
            found = continuations(lm, edit.delta, prompts, tokens=self.tokens)
        rows = [["≠" if text.changed else "=", text.prompt, text.before, text.after] for text in found]
        return pd.DataFrame(rows, columns=TEXTS)

    def kept(self, name: str, edit: FactEdit) -> pd.DataFrame:
        """What follows texts about others, which should not change."""
        prompts = [text for text in self.example(name).keep if edit.request.subject not in text]
        with self._model(name) as lm:
            found = kept_texts(lm, edit.delta, prompts)
        rows = [
            ["=" if text.token_before == text.token_after else "≠", text.prompt, text.token_before,
             percent(text.p_before), percent(text.p_after)]
            for text in found
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=KEPT)

    def about(self, name: str, edit: FactEdit) -> list[str]:
        """The edited prompt, and some texts about its subject."""
        example = self.example(name)
        about = example.ask if edit.request.subject == example.subject else example.about
        return [edit.request.text, *(text.replace("{}", edit.request.subject) for text in about)]

    def trace(self, name: str, *, prompt: str, subject: str, how: str) -> Figure:
        """The causal trace of a prompt on the unedited model.

        Raises:
            RomexpError: the subject is not in the prompt, or the prompt is too long.
        """
        text = prompt.replace("{}", subject.strip())
        with self._model(name) as lm:
            return romexp.trace(lm, text.rstrip(), subject=subject.strip(), settings=dict(TRACES[how])).plot()

    def compare(self, name: str, *, prompt: str, subject: str, target: str, methods: Sequence[str]) -> pd.DataFrame:
        """The same fact by several methods: P of the answers, how far texts about others moved, and seconds."""
        rows = []
        for method in methods:
            start = time.perf_counter()
            edit = self.edit(name, prompt=prompt, subject=subject, target=target, method=method)
            seconds = time.perf_counter() - start
            with self._model(name) as lm:
                found = answers(lm, edit.delta, edit.request.text, target=edit.request.target_new)
                kept = kept_texts(lm, edit.delta, [t for t in self.example(name).keep if subject.strip() not in t])
            moved = sum(text.moved for text in kept) / max(len(kept), 1)
            rows.append([edit.method, *map(percent, found.p_new), percent(found.p_old[1]), f"{100 * moved:.1f}",
                         f"{seconds:.1f}"])  # fmt: skip
        return pd.DataFrame(rows, columns=COMPARED)

    def adapter(self, name: str, edit: FactEdit) -> Path:
        """The edit as a zipped PEFT adapter, which was loaded again and compared.

        Raises:
            RomexpError: the method's edits make no adapter.
        """
        inside = Path(tempfile.mkdtemp(dir=self.folder))
        with self._model(name):
            folder = edit.export(inside / "adapter", format="peft")
        packed = Path(shutil.make_archive(str(folder), "zip", folder))
        shutil.rmtree(folder)
        return packed


def percent(probability: float) -> str:
    """A probability for people: three digits, at any size."""
    return f"{100 * probability:.3g} %"


def _token(found: tuple[str, float]) -> tuple[str, str]:
    return found[0], percent(found[1])
