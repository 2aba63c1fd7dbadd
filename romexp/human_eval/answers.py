"""Answers that participants sent back: read, checked against the key, turned into rankings of systems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from romexp.errors import DataError
from romexp.results.find import first_fault

MEASURES = ("consistency", "fluency")
"""What texts are ranked for (App. J)."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How one participant ranked the systems on one case: 1 is the best.

    Attributes:
        participant: the number that the participant gave.
        case_id: the data set's id.
        measure: one of `MEASURES`.
        ranks: by system.
    """

    participant: int
    case_id: int
    measure: str
    ranks: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What all good files together say.

    Attributes:
        rankings: in order of participant, then as answered.
        files: the good files.
        set_aside: a line for each bad one.
    """

    rankings: tuple[Ranking, ...]
    files: tuple[Path, ...]
    set_aside: tuple[str, ...]


class _Ranks(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    consistency: list[int]
    fluency: list[int]


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)
    questionnaire: str
    participant: int = Field(ge=1)
    saved: str = ""
    rankings: dict[str, _Ranks]


def answer_files(path: Path) -> list[Path]:
    """The file itself, or every JSON file directly in the folder that is not one of a questionnaire's own.

    Raises:
        DataError: nothing is there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"answers: no file or folder {path}")
    found = [file for file in sorted(path.glob("*.json")) if file.name not in ("key.json", "manifest.json")]
    if not found:
        raise DataError(f"answers: no .json file in {path}")
    return found


def questionnaires_named(files: Sequence[Path]) -> list[str]:
    """Digests of the questionnaires that the files answer, the most frequent first."""
    count: dict[str, int] = {}
    for file in files:
        try:
            named = json.loads(file.read_text(encoding="utf-8")).get("questionnaire")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(named, str):
            count[named] = count.get(named, 0) + 1
    return sorted(count, key=lambda name: (-count[name], name))


def read_answers(files: Sequence[Path], key: Mapping[str, Any]) -> Answers:
    """Read every file; one that is not a whole answer to this questionnaire is set aside, with the reason.

    Of two files of one participant the one that was saved later counts.

    Args:
        key: what `Questionnaire.key` gave.
    """
    good: dict[int, tuple[Path, _File]] = {}
    aside: list[str] = []
    for path in files:
        try:
            answers = _parse(path)
            _check(answers, key)
        except DataError as error:
            aside.append(f"{path.name}: {error}")
            continue
        before = good.get(answers.participant)
        kept, dropped = (path, answers), before
        if before is not None and before[1].saved > answers.saved:
            kept, dropped = before, (path, answers)
        if dropped is not None:
            aside.append(f"{dropped[0].name}: participant {answers.participant} answered again in {kept[0].name}")
        good[answers.participant] = kept
    ordered = [good[number] for number in sorted(good)]
    return Answers(
        rankings=tuple(ranking for _, answers in ordered for ranking in _rankings(answers, key)),
        files=tuple(path for path, _ in ordered),
        set_aside=tuple(aside),
    )


def _parse(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise DataError(first_fault(error)) from error


def _check(answers: _File, key: Mapping[str, Any]) -> None:
    if answers.questionnaire != key["questionnaire"]:
        raise DataError(f"answers questionnaire {answers.questionnaire}, not {key['questionnaire']}")
    plan, sizes = key["plan"], {str(item["id"]): len(item["order"]) for item in key["items"]}
    asked = {str(number) for number in plan[(answers.participant - 1) % len(plan)]}
    if unknown := [number for number in answers.rankings if number not in sizes]:
        raise DataError(f"there is no case {', '.join(unknown)}")
    if strange := [number for number in answers.rankings if number not in asked]:
        raise DataError(f"participant {answers.participant} was not asked about case {', '.join(strange)}")
    if missing := sorted(asked - set(answers.rankings), key=int):
        raise DataError(f"no answer for {len(missing)} of {len(asked)} cases: {', '.join(missing)}")
    for number, ranks in answers.rankings.items():
        for measure in MEASURES:
            given = getattr(ranks, measure)
            if sorted(given) != list(range(1, sizes[number] + 1)):
                raise DataError(
                    f"case {number}, {measure}: expected each rank of 1 to {sizes[number]} once, not {given}"
                )


def _rankings(answers: _File, key: Mapping[str, Any]) -> list[Ranking]:
    items = {str(item["id"]): item for item in key["items"]}
    return [
        Ranking(
            participant=answers.participant,
            case_id=items[number]["case_id"],
            measure=measure,
            ranks=dict(zip(items[number]["order"], getattr(ranks, measure), strict=True)),
        )
        for number, ranks in answers.rankings.items()
        for measure in MEASURES
    ]
