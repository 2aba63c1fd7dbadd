"""Finds the cases that a study lacks, and the commands that would measure them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from romexp.analysis.shared_cases import measured_ids
from romexp.analysis.studies import Entry, Study
from romexp.results.find import FoundRun
from romexp.results.settings import shown_value

SHOWN_IDS = 5
ONE_JOB = "hydra.mode=RUN"
"""With this override, the file of a sweep gives the settings of one job."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Something that a study lacks.

    Attributes:
        note: a text for the reader that says what is missing.
        commands: commands that would measure it. If possible, they continue runs that have begun.
        entry: label of the entry; empty if there is no entry yet.
    """

    note: str
    commands: tuple[str, ...] = ()
    entry: str = ""


def command(*arguments: str) -> str:
    """The command `romexp …` with these arguments, quoted for a shell."""
    return shlex.join(["romexp", *arguments])


def study_gaps(study: Study) -> list[Gap]:
    """The gaps of a study that is not in the paper. Each entry should have all cases that any entry has."""
    target = set().union(*(measured_ids(entry) for entry in study.entries))
    gaps = []
    runs = _Measured(study)
    for entry in study.entries:
        lacking = target - measured_ids(entry) - set_aside_ids(entry)
        commands = continuing(entry.runs)
        if lacking and not commands:
            commands = _with_selection(entry.runs[-1], runs.covering(lacking))
        if commands:
            count = f"{entry.n_cases} of {len(target)} cases" if lacking else f"{entry.n_cases} cases so far"
            note = f"{entry.label}: {count}{_why(entry)}"
            gaps.append(Gap(note=note, commands=tuple(commands), entry=entry.label))
    return gaps


def entry_gap(entry: Entry, *, records: int, base: Sequence[str], suffix: Sequence[str] = ()) -> Gap | None:
    """The gap of an entry that should have the first `records` records of a data set with case ids 0, 1, 2, …

    Args:
        base: the arguments of the command for a whole run, without the selection of cases.
        suffix: further arguments, which come after the selection.

    Returns:
        None if nothing is missing.
    """
    target = set(range(records))
    lacking = target - measured_ids(entry) - set_aside_ids(entry)
    if not lacking:
        return None
    commands = continuing(entry.runs)
    uncovered = sorted(lacking - _selected_ids(entry.runs, records)) if commands else sorted(lacking)
    if uncovered:
        first = uncovered[0]
        is_tail = first > 0 and len(uncovered) == records - first
        selection = [f"dataset.offset={first}", f"dataset.limit={records - first}"] if is_tail else []
        commands.append(command(*base, *(selection or [f"dataset.limit={records}"]), *suffix))
    note = f"{entry.label}: {records - len(lacking)} of {records} cases{_why(entry)}"
    return Gap(note=note, commands=tuple(commands), entry=entry.label)


def _selected_ids(runs: Sequence[FoundRun], records: int) -> set[int]:
    """Ids of the cases that the runs will have measured once they, and all shards of them, are finished."""
    ids: set[int] = set()
    for run in runs:
        offset, limit = int(run.selection.get("offset") or 0), run.selection.get("limit")
        if run.selection.get("case_ids") is None:
            ids |= set(range(offset, records if limit is None else min(records, offset + int(limit))))
    return ids


def set_aside_ids(entry: Entry) -> set[int]:
    """Ids of the cases that could not be edited or measured, and positions of the records that the loader refused."""
    ids = {case["case_id"] for run in entry.runs for case in run.set_aside if isinstance(case.get("case_id"), int)}
    return ids | {
        record["index"] for run in entry.runs for record in run.rejected if isinstance(record.get("index"), int)
    }


def continuing(runs: Sequence[FoundRun]) -> list[str]:
    """Commands that continue unfinished runs, and commands for shards that have not begun while others of them have."""
    unfinished = [command(*run.overrides) for run in runs if run.status != "done" and run.overrides]
    return list(dict.fromkeys([*unfinished, *_missing_shards(runs)]))


def _missing_shards(runs: Sequence[FoundRun]) -> list[str]:
    begun: dict[str, dict[int, FoundRun]] = {}
    for run in runs:
        number, _, count = str(run.selection.get("shard") or "").partition("/")
        if count:
            others = {key: value for key, value in run.selection.items() if key != "shard"}
            begun.setdefault(f"{count} of {others}", {})[int(number)] = run
    commands = []
    for shards in begun.values():
        example = next(iter(shards.values()))
        total = int(str(example.selection["shard"]).partition("/")[2])
        for missing in sorted(set(range(1, total + 1)) - set(shards)):
            selection = {**example.selection, "shard": f"{missing}/{total}"}
            commands.append(command(*selecting(example, selection)))
    return commands


class _Measured:
    """The cases that each run of a study has measured; they are read when they are first asked for."""

    def __init__(self, study: Study) -> None:
        self.study = study

    @cached_property
    def ids(self) -> list[tuple[FoundRun, set[int]]]:
        """Each run with the ids of its cases."""
        runs = {run.path: run for entry in self.study.entries for run in entry.runs}
        return [(run, {row["case_id"] for row in run.rows() if row.get("post") is not None}) for run in runs.values()]

    def covering(self, lacking: Collection[int]) -> list[FoundRun]:
        """A few runs that have measured all of the lacking cases, so that their selections of cases can be repeated.

        Each time, the run is taken that has most of what is still lacking, and of equal ones the smallest.
        """
        left, chosen = set(lacking), []
        while left:
            run, own = max(self.ids, key=lambda each: (len(each[1] & left), -len(each[1])))
            if not own & left:
                break
            chosen.append(run)
            left -= own
        return chosen


def selecting(run: FoundRun, selection: Mapping[str, Any]) -> list[str]:
    """The overrides of a run with another selection of cases.

    What the run itself was given stays where it is the same. All else is written out, null and 0 too: the run's sweep
    or experiment may set it in a file. A result folder of its own is left out, since it holds other cases.
    """
    differing = {key: value for key, value in selection.items() if value != run.selection.get(key)}
    keys = {"output_dir", *(f"dataset.{key}" for key in differing)} if differing else set()
    kept = [override for override in run.overrides if override.partition("=")[0].lstrip("+~") not in keys]
    return [*kept, *(f"dataset.{key}={_value(value)}" for key, value in differing.items())]


def as_few_commands(commands: Iterable[str]) -> tuple[str, ...]:
    """The commands without repetitions, those that differ only in their editor joined to one sweep."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for text in dict.fromkeys(commands):
        words = shlex.split(text)
        editors = [word for word in words if re.fullmatch(r"editor=\w+", word)]
        key = tuple("editor=" if word in editors else word for word in words) if len(editors) == 1 else tuple(words)
        groups.setdefault(key, []).append(editors[0].partition("=")[2] if len(editors) == 1 else "")
    return tuple(_joined(words, editors) for words, editors in groups.items())


def _joined(words: Sequence[str], editors: Sequence[str]) -> str:
    """One command for several editors: a sweep over them, in place of what the file of a sweep would vary."""
    if len(editors) == 1:
        return shlex.join(f"editor={editors[0]}" if word == "editor=" else word for word in words)
    from_file = ONE_JOB in words
    kept = [f"editor={','.join(editors)}" if word == "editor=" else word for word in words if word != ONE_JOB]
    return shlex.join([kept[0], "-m", *kept[1:], *(["hydra.sweeper.params=null"] if from_file else [])])


def _with_selection(run: FoundRun, like: Sequence[FoundRun]) -> list[str]:
    """The run's command, once with the selection of cases of each run in `like`."""
    return [command(*selecting(run, other.selection)) for other in like]


def _value(value: Any) -> str:
    """A value as it is written on the command line."""
    return shown_value(list(value) if isinstance(value, tuple) else value)


def _why(entry: Entry) -> str:
    parts = []
    if unfinished := sum(run.status != "done" for run in entry.runs):
        parts.append(f"{unfinished} of {len(entry.runs)} runs not finished")
    if entry.summary["n_failed"]:
        parts.append(f"{entry.summary['n_failed']} cases failed")
    if aside := len(set_aside_ids(entry)):
        shown = sorted(set_aside_ids(entry))[:SHOWN_IDS]
        parts.append(f"{aside} set aside ({', '.join(map(str, shown))}{', …' if aside > SHOWN_IDS else ''})")
    return f" ({'; '.join(parts)})" if parts else ""
