"""An editor that changes nothing, so that the unedited model can be measured in a run like any other."""

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
    """An editor that changes nothing: it returns an empty delta for each request."""

    name: str = "none"

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        return [Edit(delta=WeightDelta()) for _ in requests]
