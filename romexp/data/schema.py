"""Types of raw fields that the data sets share. Pydantic checks them, and `explain` words its errors for the user."""

from __future__ import annotations

import reprlib
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from romexp.facts import LARGEST_ID, answer_text

MOST_FAULTS = 4
"""Most faults of a record that its reason names."""

_VISIBLE, _VISIBLE_END, _VISIBLE_START = r"\S", r"\S$", r"^\S"
_PATTERNS = {
    _VISIBLE: "expected some text",
    _VISIBLE_END: "expected text that does not end in white space",
    _VISIBLE_START: "expected text that does not begin with white space (the space is added where it is tokenized)",
}


def _one_slot(template: str) -> str:
    if (found := template.count("{}")) != 1:
        raise PydanticCustomError(
            "one_slot", "expected exactly one {} for the subject, found {found}", {"found": found}
        )
    return template


Text = Annotated[str, StringConstraints(pattern=_VISIBLE)]
"""Text that is not blank."""
Prompt = Annotated[str, StringConstraints(pattern=_VISIBLE_END)]
"""A complete prompt. It has no space at its end, since a space is added before the target (docs/method.md §1.5)."""
Target = Annotated[str, StringConstraints(pattern=_VISIBLE_START), AfterValidator(answer_text)]
"""An answer without a leading space (docs/method.md §1.5). White space at its end is left out."""
Template = Annotated[Prompt, AfterValidator(_one_slot)]
"""A prompt with exactly one `{}`."""


def whole_number(value: Any) -> Any:
    """The integer of a float without a fraction, as tables have it in a column with gaps; any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Id = Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=LARGEST_ID)]
"""The number of a record."""


class RawRecord(BaseModel):
    """Base of raw records. It does not convert types (`"5"` is not a number), and ignores unknown fields."""

    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)


def explain(error: ValidationError) -> tuple[str, str]:
    """The first invalid field, and the reason. Some further faults are appended to the reason."""
    faults = [(_field(fault), _reason(fault)) for fault in error.errors(include_url=False)[: MOST_FAULTS + 1]]
    field, reason = faults[0]
    more = [f"{name}: {why}" for name, why in faults[1:MOST_FAULTS]] + ["…"] * (len(faults) > MOST_FAULTS)
    return field, "; ".join([reason, *more])


def shown(value: Any) -> str:
    """The value as an error message shows it: `repr`, cut to 60 characters and a few levels of nesting."""
    if isinstance(value, str) and len(value) > 200:
        value = value[:200]  # so that a text of megabytes is not copied
    text = _BRIEF.repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _brief() -> reprlib.Repr:
    brief = reprlib.Repr()
    brief.maxstring = brief.maxother = 100
    return brief


_BRIEF = _brief()


def _field(fault: ErrorDetails) -> str:
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    return name.removeprefix(".") or "(record)"


def _reason(fault: ErrorDetails) -> str:
    given = shown(fault["input"])
    match fault["type"]:
        case "missing":
            return "missing"
        case "string_pattern_mismatch":
            return f"{_PATTERNS[fault['ctx']['pattern']]}, not {given}"
        case "model_type":
            return f"expected an object, not {given}"
        case "one_slot":
            return f"{fault['msg']} in {given}"
        case _:
            return f"{fault['msg'].replace('Input should be', 'expected')}, not {given}"
