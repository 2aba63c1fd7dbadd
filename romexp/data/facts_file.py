"""Facts in any of the usual forms (docs/data.md): a line of a table is enough, lists of prompts are optional."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from romexp.data.dataset import RecordFile
from romexp.data.layouts import Part, id_of, parts_of
from romexp.data.schema import Prompt, Target, Text, explain, shown, whole_number
from romexp.errors import RecordError
from romexp.facts import LARGEST_ID, Case, EditRequest
from romexp.subjects import find_subject

_QUESTION = "nq question: "


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _as_text(value: Any) -> Any:
    """A number as a text: a table may hold years."""
    value = whole_number(value)
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_STRICT = ConfigDict(strict=True)
_OneText = Annotated[Text, BeforeValidator(_stripped), BeforeValidator(_as_text)]
_OnePrompt = Annotated[Prompt, BeforeValidator(_stripped)]
_OneTarget = Annotated[Target, BeforeValidator(_stripped), BeforeValidator(_as_text)]
_FORMS: Mapping[str, TypeAdapter[Any]] = {
    "subject": TypeAdapter(_OneText, config=_STRICT),
    "prompt": TypeAdapter(_OnePrompt, config=_STRICT),
    "target_new": TypeAdapter(_OneTarget, config=_STRICT),
    "target_true": TypeAdapter(_OneTarget, config=_STRICT),
    "relation_id": TypeAdapter(_OneText, config=_STRICT),
    "target_new_id": TypeAdapter(_OneText, config=_STRICT),
    "paraphrase_prompts": TypeAdapter(list[_OnePrompt], config=_STRICT),
    "neighborhood_prompts": TypeAdapter(list[_OnePrompt], config=_STRICT),
    "neighborhood_targets": TypeAdapter(list[_OneTarget], config=_STRICT),
    "attribute_prompts": TypeAdapter(list[_OnePrompt], config=_STRICT),
    "generation_prompts": TypeAdapter(list[_OnePrompt], config=_STRICT),
}


@dataclass(frozen=True, kw_only=True)
class FactsFile(RecordFile[Case]):
    """Facts to edit in any of the forms that `romexp.data.layouts` knows, of any format that `RecordFile` reads.

    A fact needs a subject, a prompt and a new answer. The prompt has one `{}` (or `{subject}`, `[X]`) for the subject,
    or names it. Without an old answer (`target_true`), and for neighbours with answers of their own, accuracies are
    measured instead of comparisons of both answers (docs/method.md §5.6). White space around texts is left out.

    `case_id` is the record's id if that is a whole number, and its position in the file otherwise. A record is set
    aside if a part is missing or of another type, if its two answers are equal, if it is more than one edit, or if an
    earlier record has its id.
    """

    name: str = "facts"

    def record_id(self, index: int, record: Any) -> int | None:
        """The record's id if it is a whole number, else its position."""
        found = _number(id_of(record))
        return index if found is None else found

    def record_key(self, index: int, record: Any) -> Hashable:
        """The number, or the text, by which a record is named; None without a name."""
        found = id_of(record)
        number = _number(found)
        return number if number is not None else found if isinstance(found, str) else None

    def parse(self, index: int, record: Any) -> Case:
        parts = parts_of(record)
        values = _checked(parts)
        template = _template(values["prompt"], values["subject"], parts["prompt"].name)
        if values["target_new"] == values.get("target_true"):
            raise RecordError(
                f"expected another answer than target_true, not {shown(values['target_new'])}",
                field=parts["target_new"].name,
            )
        neighbours, answers = _neighbours(parts, values)
        request = EditRequest(
            subject=values["subject"],
            prompt=template,
            target_new=values["target_new"],
            target_true=values.get("target_true", ""),
            relation_id=values.get("relation_id", ""),
            target_new_id=values.get("target_new_id", ""),
        )
        return Case(
            case_id=_checked_id(self.record_id(index, record)),
            request=request,
            paraphrase_prompts=tuple(values.get("paraphrase_prompts", ())),
            neighborhood_prompts=neighbours,
            neighborhood_targets=answers,
            attribute_prompts=tuple(values.get("attribute_prompts", ())),
            generation_prompts=tuple(values.get("generation_prompts", ())),
        )


def _number(value: Any) -> int | None:
    value = whole_number(value)
    if isinstance(value, str) and re.fullmatch(r"\d{1,19}(\.0+)?", value.strip()):
        return int(value.strip().partition(".")[0])
    return value if type(value) is int else None


def _checked_id(number: int | None) -> int:
    if number is None or not 0 <= number <= LARGEST_ID:
        raise RecordError(f"expected a number from 0 to {LARGEST_ID}, not {shown(number)}", field="case_id")
    return number


def _checked(parts: Mapping[str, Part]) -> dict[str, Any]:
    """The parts' values, of the types that they must have.

    Raises:
        RecordError: it names the first wrong part by the record's own name, and some further ones.
    """
    values: dict[str, Any] = {}
    faults: list[tuple[str, str]] = []
    for which, part in parts.items():
        try:
            values[which] = _FORMS[which].validate_python(part.value)
        except ValidationError as error:
            place, reason = explain(error)
            inner = "" if place == "(record)" else place if place.startswith("[") else f".{place}"
            faults.append((f"{part.name}{inner}", reason))
    if faults:
        more = [f"{name}: {reason}" for name, reason in faults[1:4]]
        raise RecordError("; ".join([faults[0][1], *more]), field=faults[0][0])
    return values


def _template(prompt: str, subject: str, field: str) -> str:
    """The prompt with one `{}` for the subject.

    Raises:
        RecordError: it has several places for the subject, or none and does not name it either.
    """
    template = prompt.replace("{subject}", "{}").replace("[X]", "{}") if "{}" not in prompt else prompt
    if (found := template.count("{}")) > 1:
        raise RecordError(f"expected one {{}} for the subject, found {found} in {shown(prompt)}", field=field)
    if found:
        return template
    try:
        start = find_subject(prompt, subject)
    except RecordError as error:
        raise RecordError(f"expected {{}} or the subject {shown(subject)} in {shown(prompt)}", field=field) from error
    return prompt[:start] + "{}" + prompt[start + len(subject) :]


def _neighbours(parts: Mapping[str, Part], values: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Neighbourhood prompts, and their own answers if they have any."""
    prompts, answers = values.get("neighborhood_prompts", []), values.get("neighborhood_targets", [])
    if answers and len(answers) != len(prompts):
        raise RecordError(
            f"expected an answer to each of {len(prompts)} neighbourhood prompts, found {len(answers)}",
            field=parts["neighborhood_targets"].name,
        )
    # zsRE's questions lack the mark at their end, which the authors' code adds.
    whole = [f"{text}?" if text.startswith(_QUESTION) and not text.endswith("?") else text for text in prompts]
    return tuple(whole), tuple(answers)
