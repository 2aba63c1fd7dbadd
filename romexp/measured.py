"""The form of what an evaluator measures on one case (`romexp.facts.Measurements`), to check values from disk."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Strict, ValidationError

_Number = Annotated[float, Strict()]
_Pairs = list[tuple[_Number | None, _Number | None]] | None
_Flags = list[Annotated[bool, Strict()] | _Number] | None


class _Measured(BaseModel):
    """Every part may be missing; unknown parts are ignored."""

    model_config = ConfigDict(extra="ignore")

    rewrite_prompts: _Pairs = None
    paraphrase_prompts: _Pairs = None
    neighborhood_prompts: _Pairs = None
    attribute_prompts: _Pairs = None
    rewrite_prompts_correct: _Flags = None
    paraphrase_prompts_correct: _Flags = None
    neighborhood_prompts_correct: _Flags = None
    attribute_prompts_correct: _Flags = None
    text: list[str] | None = None
    ngram_entropy: _Number | None = None
    reference_score: _Number | None = None
    essence_score: _Number | None = None
    notes: list[str] | None = None


def fault_of(measured: Any) -> str:
    """What is wrong with a value that should be the measurements of one case; empty if nothing is."""
    return form_fault(_Measured, measured)


def form_fault(form: type[BaseModel], value: Any) -> str:
    """What is wrong with a value that should have a form; empty if nothing is."""
    try:
        form.model_validate(value)
    except ValidationError as error:
        return first_fault(error)
    return ""


def first_fault(error: ValidationError) -> str:
    """The first fault of a value in words, for example `names.model: Input should be a valid string`."""
    first = error.errors(include_url=False, include_input=False)[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
