"""Finds the parts of a fact in a record, whatever the record calls them.

Known are flat records under several usual names, and the layouts of CounterFact, MEMIT's multi_counterfact, zsRE,
KnowEdit and MQuAKE. A record may have fields that are none of these; they are not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from romexp.data.schema import shown
from romexp.data.table_rows import Row
from romexp.errors import RecordError

ID = ("case_id", "id", "known_id", "fact_id", "record_id")
_FACT: Mapping[str, tuple[str, ...]] = {
    "subject": ("subject", "entity", "subj"),
    "prompt": ("prompt", "template", "rewrite_prompt", "rewriting_prompt", "src", "cloze", "question", "query"),
    "target_new": (
        "target_new", "new_target", "object_new", "new_object", "target_false", "false_target", "answer_new",
        "new_answer", "edit_target", "answers", "target", "new", "object", "answer",
    ),
    "target_true": (
        "target_true", "true_target", "target_old", "old_target", "object_true", "true_object", "object_old",
        "old_object", "ground_truth", "answer_true", "true_answer", "answer_old", "old_answer", "true", "old",
    ),
    "relation_id": ("relation_id", "relation"),
    "target_new_id": ("target_new_id",),
}  # fmt: skip
"""The usual names of each part of a fact. The first that a record has is taken."""

_LISTS: Mapping[str, tuple[str, ...]] = {
    "paraphrase_prompts": (
        "paraphrase_prompts", "paraphrase_prompt", "paraphrases", "paraphrase", "rephrase_prompts", "rephrase_prompt",
        "rephrased_prompts", "rephrased_prompt", "rephrases", "rephrase",
    ),
    "neighborhood_prompts": (
        "neighborhood_prompts", "neighbourhood_prompts", "neighborhood_prompt", "neighbourhood_prompt", "neighborhood",
        "neighbourhood", "neighbor_prompts", "neighbour_prompts", "neighbors", "neighbours", "neighbor", "neighbour",
        "locality_prompts", "locality_prompt", "loc",
    ),
    "neighborhood_targets": (
        "neighborhood_targets", "neighbourhood_targets", "neighborhood_answers", "neighbourhood_answers",
        "locality_ground_truths", "locality_ground_truth", "locality_answers", "loc_ans",
    ),
    "attribute_prompts": ("attribute_prompts", "attribute_prompt", "attributes", "attribute"),
    "generation_prompts": ("generation_prompts", "generation_prompt", "generations", "generation"),
}  # fmt: skip
"""The usual names of each list of prompts."""

_REWRITE = "requested_rewrite"
_ANSWERS = ("target", "answer", "ground_truth", "target_true")
_SEPARATORS = re.compile(r"\s*(?:\||\r?\n)\s*")


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of a record.

    Attributes:
        name: what the record calls it, for error messages: `requested_rewrite.target_new.str`.
        value: what stands there.
    """

    name: str
    value: Any


def parts_of(record: Any) -> dict[str, Part]:
    """The parts of a fact that a record has: `subject`, `prompt`, `target_new` and others of `romexp.facts.Case`.

    Raises:
        RecordError: the record is no object, or is not one single edit.
    """
    if not isinstance(record, Mapping):
        raise RecordError(f"expected an object, not {shown(record)}", field="(record)")
    top, prefix = _named(record), ""
    fact = top
    if _REWRITE in top:
        fact, prefix = _rewrite(top[_REWRITE].value)
    parts = _facts(fact, prefix)
    parts |= _lists(top, "", is_row=isinstance(record, Row))
    if "paraphrase_prompts" not in parts and "question" in fact and parts.get("prompt") != fact["question"]:
        parts["paraphrase_prompts"] = Part(name=fact["question"].name, value=[fact["question"].value])
    if "locality" in top and "neighborhood_prompts" not in parts:
        parts |= _locality(top["locality"])
    return parts


def id_of(record: Any) -> Any:
    """What stands in the field that names a record; None if there is none."""
    return _id(_named(record)) if isinstance(record, Mapping) else None


def _id(top: Mapping[str, Part]) -> Any:
    return next((top[name].value for name in ID if name in top), None)


def _named(record: Mapping[Any, Any], prefix: str = "") -> dict[str, Part]:
    """Fields by their names in small letters with underscores. Those that hold nothing are left out."""
    found: dict[str, Part] = {}
    for key, value in record.items():
        name = re.sub(r"[\s\-]+", "_", str(key).strip().lower())
        if not _is_nothing(value):
            found.setdefault(name, Part(name=f"{prefix}{key}", value=value))
    return found


def _is_nothing(value: Any) -> bool:
    return value is None or value == "" or value == [] or (isinstance(value, float) and math.isnan(value))


def _rewrite(value: Any) -> tuple[dict[str, Part], str]:
    """The fields of the edit, which MQuAKE has in a list."""
    if isinstance(value, list):
        if len(value) != 1:
            raise RecordError(f"expected one single edit, found {len(value)}", field=_REWRITE)
        return _rewrite_fields(value[0], f"{_REWRITE}[0]")
    return _rewrite_fields(value, _REWRITE)


def _rewrite_fields(value: Any, name: str) -> tuple[dict[str, Part], str]:
    if not isinstance(value, Mapping):
        raise RecordError(f"expected an object, not {shown(value)}", field=name)
    return _named(value, f"{name}."), f"{name}."


def _facts(fact: Mapping[str, Part], prefix: str) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    taken: set[str] = set()
    for part, names in _FACT.items():
        found = next((name for name in names if name in fact and name not in taken), None)
        if found is None:
            continue
        taken.add(found)
        value = fact[found]
        if part in ("target_new", "target_true"):
            value = _text_of_target(value, part, parts)
            if _is_nothing(value.value):
                continue
        parts[part] = value
    for needed in ("subject", "prompt", "target_new"):
        if needed not in parts:
            raise RecordError("missing", field=f"{prefix}{needed}")
    return parts


def _text_of_target(part: Part, which: str, parts: dict[str, Part]) -> Part:
    """The text of a target, which may stand in an object with an id, or first in a list of equivalent answers."""
    name, value = part.name, part.value
    while isinstance(value, list) and value:
        name, value = f"{name}[0]", value[0]
    if isinstance(value, Mapping):
        inner = _named(value, f"{name}.")
        if "str" not in inner:
            raise RecordError("missing", field=f"{name}.str")
        if which == "target_new" and "id" in inner:
            parts["target_new_id"] = inner["id"]
        return inner["str"]
    return Part(name=name, value=value)


def _lists(top: Mapping[str, Part], prefix: str, *, is_row: bool) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for part, names in _LISTS.items():
        found = next((top[name] for name in names if name in top), None)
        if found is not None:
            parts[part] = Part(name=found.name, value=_prompts(found.value, is_row=is_row))
        elif numbered := _numbered(top, names):
            parts[part] = Part(name=numbered[0].name, value=[each.value for each in numbered])
    return _with_own_answers(parts)


def _prompts(value: Any, *, is_row: bool) -> Any:
    """A list of prompts; a text is one prompt. In a cell of a table, `|` or a new line stands between prompts."""
    if isinstance(value, str):
        return [text for text in _SEPARATORS.split(value.strip()) if text] if is_row else [value]
    return value


def _numbered(top: Mapping[str, Part], names: Sequence[str]) -> list[Part]:
    """The columns `paraphrase_1`, `paraphrase_2`, … of a table, in the order of their numbers."""
    found = []
    for key, part in top.items():
        if (match := re.fullmatch(r"(.+?)_?(\d{1,4})", key)) and match[1] in names:
            found.append((int(match[2]), part))
    return [part for _, part in sorted(found, key=lambda pair: pair[0])]


def _with_own_answers(parts: dict[str, Part]) -> dict[str, Part]:
    """Neighbourhood prompts may be objects with a prompt and its own answer."""
    part = parts.get("neighborhood_prompts")
    if part is not None and isinstance(part.value, list) and any(isinstance(each, Mapping) for each in part.value):
        prompts, answers = _pairs(part.value, part.name)
        parts["neighborhood_prompts"] = Part(name=part.name, value=prompts)
        parts["neighborhood_targets"] = Part(name=part.name, value=answers)
    return parts


def _locality(part: Part) -> dict[str, Part]:
    """KnowEdit's locality: for each kind a list of prompts with their answers, or two lists of them."""
    groups = part.value if isinstance(part.value, Mapping) else {"": part.value}
    prompts: list[Any] = []
    answers: list[Any] = []
    for kind, group in groups.items():
        name = f"{part.name}.{kind}" if kind else part.name
        if isinstance(group, Mapping):
            group = _two_lists(group)
        if _is_nothing(group):
            continue
        if not isinstance(group, list):
            raise RecordError(f"expected a list of prompts with answers, not {shown(group)}", field=name)
        more_prompts, more_answers = _pairs(group, name)
        prompts += more_prompts
        answers += more_answers
    if not prompts:
        return {}
    both = {"neighborhood_prompts": prompts, "neighborhood_targets": answers}
    return {which: Part(name=part.name, value=value) for which, value in both.items()}


def _two_lists(group: Mapping[str, Any]) -> Any:
    """The pairs of `{"prompt": [...], "ground_truth": [...]}`, in which a text stands for a list of one."""
    prompts, answers = group.get("prompt"), group.get("ground_truth")
    if isinstance(prompts, str):
        prompts, answers = [prompts], [answers]
    if not isinstance(prompts, list) or not isinstance(answers, list) or len(prompts) != len(answers):
        return group
    return [{"prompt": prompt, "ground_truth": answer} for prompt, answer in zip(prompts, answers, strict=True)]


def _pairs(group: Sequence[Any], name: str) -> tuple[list[Any], list[Any]]:
    prompts, answers = [], []
    for number, each in enumerate(group):
        place = f"{name}[{number}]"
        if not isinstance(each, Mapping):
            raise RecordError(f"expected an object with prompt and answer, not {shown(each)}", field=place)
        fields = _named(each, f"{place}.")
        prompt = next((fields[key].value for key in ("prompt", "question", "text") if key in fields), None)
        answer = next((fields[key] for key in _ANSWERS if key in fields), None)
        if prompt is None or answer is None:
            raise RecordError("missing", field=f"{place}.{'prompt' if prompt is None else 'answer'}")
        prompts.append(prompt)
        answers.append(_text_of_target(answer, "", {}).value)
    return prompts, answers
