"""What the demo's page calls: the workbench's results as Gradio shows them, and errors as one line."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr
import pandas as pd
from matplotlib.figure import Figure

from romexp.api.edits import FactEdit
from romexp.demo.workbench import Workbench
from romexp.errors import ConfigError, RomexpError


@dataclass(frozen=True, kw_only=True)
class Told:
    """A visitor's edit, and the name of its model. Gradio keeps it with the visitor's session."""

    model: str
    edit: FactEdit

    def __deepcopy__(self, memo: Any) -> Told:
        """The value itself: it is never changed, and its model is large."""
        return self


@dataclass(frozen=True, kw_only=True)
class Actions:
    """Handlers of the page's events. All raise `gr.Error` with one line where the visitor made a mistake."""

    workbench: Workbench

    def form(self, model: str) -> tuple[str, str, str, None]:
        """The example fact of a model that was chosen; the edit of another model is forgotten."""
        example = self.workbench.example(model)
        return example.prompt, example.subject, example.target, None

    def tell(self, model: str, prompt: str, subject: str, target: str, method: str) -> list[Any]:
        """Make the edit; what it changed, and what it did not."""
        with _one_line():
            edit = self.workbench.edit(model, prompt=prompt, subject=subject, target=target, method=method)
            asked, top = self.workbench.answers(model, edit)
            about = self.workbench.texts(model, edit, self.workbench.about(model, edit))
            kept = self.workbench.kept(model, edit)
            return [Told(model=model, edit=edit), asked, top, about, kept, None]

    def ask(self, told: Told | None, question: str) -> pd.DataFrame:
        """How both models continue a text."""
        with _one_line():
            if not question.strip():
                raise ConfigError("the text is empty")
            told = _needed(told)
            return self.workbench.texts(told.model, told.edit, [question.rstrip()])

    def trace(self, model: str, prompt: str, subject: str, how: str) -> Figure:
        """The causal trace of the form's text."""
        with _one_line():
            return self.workbench.trace(model, prompt=prompt, subject=subject, how=how)

    def compare(self, model: str, prompt: str, subject: str, target: str, methods: Sequence[str]) -> pd.DataFrame:
        """The form's fact by several methods."""
        with _one_line():
            if not methods:
                raise ConfigError("choose at least one method")
            return self.workbench.compare(model, prompt=prompt, subject=subject, target=target, methods=methods)

    def adapter(self, told: Told | None) -> str:
        """The path of the zipped adapter."""
        with _one_line():
            told = _needed(told)
            return str(self.workbench.adapter(told.model, told.edit))


def _needed(told: Told | None) -> Told:
    if told is None:
        raise ConfigError("tell the model a fact first")
    return told


@contextmanager
def _one_line() -> Iterator[None]:
    """Show a mistake of the visitor as text. Gradio reads messages as HTML, so that is escaped."""
    try:
        yield
    except RomexpError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error
