"""The fact that `task=try` tells a model: as the user writes it, and its edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from romexp.api.before_after import own_answer
from romexp.api.edits import FactEdit
from romexp.editors.base import Editor, Resources
from romexp.errors import raise_first_error
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.results.identity import fingerprint


@dataclass(frozen=True, kw_only=True)
class Example:
    """A fact that is told where the user gives none, and texts that show what an edit does.

    Attributes:
        subject, prompt, target: the fact; the prompt has one `{}` for the subject.
        ask: texts about the subject that both models continue.
        about: such texts for a subject of the user's own, each with one `{}`.
        keep: texts about other subjects, which should not change.
    """

    subject: str
    prompt: str
    target: str
    ask: Sequence[str] = ()
    about: Sequence[str] = ()
    keep: Sequence[str] = ()


def make_edit(
    lm: LanguageModel, editor: Editor, request: EditRequest, resources: Resources, *, source: str
) -> FactEdit:
    """Edit one fact. Editors that need the old answer get the model's own.

    Args:
        source: where the model was loaded from.

    Raises:
        RecordError: this fact cannot be edited.
    """
    known = replace(request, target_true=own_answer(lm, request.text))
    (made,) = raise_first_error(editor(lm, [known], resources=resources))
    return FactEdit(
        lm=lm,
        request=known,
        method=editor.name,
        delta=made.delta,
        diagnostics=dict(made.diagnostics),
        settings=fingerprint(editor),
        source=source,
    )


FIRST_EDIT = "edit.safetensors"
"""The file in a run's folder that holds the edit of the command line."""


def new_edit_path(folder: Path) -> Path:
    """A file for a further edit, beside those that are there already: `edit_2.safetensors`, …"""
    numbers = (2 + i for i in range(len(list(folder.glob("edit_*.safetensors"))) + 1))
    return next(file for number in numbers if not (file := folder / f"edit_{number}.safetensors").exists())
