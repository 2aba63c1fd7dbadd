"""The unedited model as an editor, so that a baseline row is a run like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from romexp.editors.base import Edit, Resources
from romexp.errors import RecordError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class NoEdit:
    """Changes nothing: every delta is empty."""

    name: str = "none"

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        return [Edit(delta=WeightDelta()) for _ in requests]
