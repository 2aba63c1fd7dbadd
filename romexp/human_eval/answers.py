"""Reads the answers of participants, checks them against the questionnaire's key, and makes rankings of systems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from romexp.errors import DataError
from romexp.facts import LARGEST_ID
from romexp.files import read_json
from romexp.measured import first_fault, form_fault

MEASURES = ("consistency", "fluency")
"""The two properties by which texts are ranked (paper App. J)."""


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """One participant's ranking of the systems on one case.

    Attributes:
        participant: the participant's number.
        case_id: the data set's id of the case.
        measure: one of `MEASURES`.
        ranks: the rank of each system; 1 is the best.
    """

    participant: int
    case_id: int
    measure: str
    ranks: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The answers of all valid files.

    Attributes:
        rankings: the rankings, in order of participant, and for each participant in the order of the file.
        files: the valid files.
        set_aside: a message for each other file.
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
    participant: int = Field(ge=1, le=LARGEST_ID)
    saved: str = ""
    rankings: dict[str, _Ranks]


class _KeyItem(BaseModel):
    model_config = ConfigDict(strict=True)
    id: int
    case_id: int
    order: list[str]


class _Key(BaseModel):
    model_config = ConfigDict(strict=True)
    questionnaire: str
    items: list[_KeyItem]
    plan: list[list[int]] = Field(min_length=1)
    systems: dict[str, str]


def check_key(key: Any) -> str:
    """What is wrong with a value that should be a questionnaire's key; empty if nothing is."""
    return form_fault(_Key, key)


def answer_files(path: Path) -> list[Path]:
    """The file itself; or all JSON files directly in the folder, without those that belong to a questionnaire.

    Raises:
        DataError: there is no such file or folder, or the folder has no such file.
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
    """Digests of the questionnaires that the files answer. The most frequent comes first."""
    counts: dict[str, int] = {}
    for file in files:
        try:
            digest = read_json(file).get("questionnaire")
        except (OSError, ValueError, AttributeError):
            continue
        if isinstance(digest, str):
            counts[digest] = counts.get(digest, 0) + 1
    return sorted(counts, key=lambda digest: (-counts[digest], digest))


def read_answers(files: Sequence[Path], key: Mapping[str, Any]) -> Answers:
    """Read all files. A file that is not a complete answer to this questionnaire is set aside, with the reason.

    If a participant has two files, the one that was saved later counts.

    Args:
        key: the questionnaire's key, from `Questionnaire.key`.
    """
    valid: dict[int, tuple[Path, _File]] = {}
    set_aside: list[str] = []
    for path in files:
        try:
            answers = _parse(path)
            _check(answers, key)
        except DataError as error:
            set_aside.append(f"{path.name}: {error}")
            continue
        previous = valid.get(answers.participant)
        kept, dropped = (path, answers), previous
        if previous is not None and previous[1].saved > answers.saved:
            kept, dropped = previous, (path, answers)
        if dropped is not None:
            set_aside.append(f"{dropped[0].name}: participant {answers.participant} answered again in {kept[0].name}")
        valid[answers.participant] = kept
    ordered = [valid[number] for number in sorted(valid)]
    return Answers(
        rankings=tuple(ranking for _, answers in ordered for ranking in _rankings(answers, key)),
        files=tuple(path for path, _ in ordered),
        set_aside=tuple(set_aside),
    )


def _parse(path: Path) -> _File:
    try:
        return _File.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    except RecursionError as error:
        raise DataError("nested too deeply") from error
    except ValidationError as error:
        raise DataError(first_fault(error)) from error


def _check(answers: _File, key: Mapping[str, Any]) -> None:
    if answers.questionnaire != key["questionnaire"]:
        raise DataError(f"answers questionnaire {answers.questionnaire}, not {key['questionnaire']}")
    plan, sizes = key["plan"], {str(item["id"]): len(item["order"]) for item in key["items"]}
    asked = {str(number) for number in plan[(answers.participant - 1) % len(plan)]}
    if unknown := [number for number in answers.rankings if number not in sizes]:
        raise DataError(f"there is no case {', '.join(unknown)}")
    if not_asked := [number for number in answers.rankings if number not in asked]:
        raise DataError(f"participant {answers.participant} was not asked about case {', '.join(not_asked)}")
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
