"""Means of a sequence of edits: right after each edit, at the end, and in between (docs/method.md §13.2)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd

from romexp.analysis.summary import Summary, case_frame, summarize_side
from romexp.results.rows import CaseResult, Row


def lifelong_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Metrics by case and time of measuring: the columns of `case_frame`, after `edited_at` and `measured_at`.

    Both are numbers of edits: those that the model held right after the case's own step, and when it was measured.
    """
    frames = []
    for measured_at in sorted({row["measured_at"] for row in rows}):
        chosen = [row for row in rows if row["measured_at"] == measured_at]
        edited_at = {row["case_id"]: row["edited_at"] for row in chosen}
        frame = case_frame([CaseResult.from_json(row) for row in chosen])
        frame.insert(1, "edited_at", frame["case_id"].map(edited_at))
        frame.insert(2, "measured_at", measured_at)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def summarize_lifelong(frame: pd.DataFrame, *, seed: int = 0) -> Summary:
    """The summary of a run of `task=lifelong`, as JSON values.

    - `pre`: the original model, each case once;
    - `immediate`: each case right after its own step;
    - `final`: all cases after the last step;
    - `retention`: for each number of edits at which the cases edited so far were measured, `measured_at`, their number
      `n_cases`, and the statistics `post`.

    A part is left out if nothing was measured for it.

    Args:
        frame: of `lifelong_frame`.
        seed: seed of the bootstrap for S.
    """
    used = frame[frame["complete"].astype(bool)]
    once = used.drop_duplicates("case_id")
    last = used["measured_at"].max() if len(used) else 0
    parts = {
        "immediate": used[used["edited_at"] == used["measured_at"]],
        "final": used[used["measured_at"] == last],
    }
    summary: Summary = {
        "n_cases": len(once),
        "n_failed": int(frame["case_id"].nunique()) - len(once),
        "n_edits": int(last),
        "pre": statistics_of(once, "pre", seed),
    }
    summary |= {name: statistics_of(part, "post", seed) for name, part in parts.items() if len(part)}
    summary["retention"] = [
        {"measured_at": time, "n_cases": len(part), "post": statistics_of(part, "post", seed)}
        for time in sorted(set(used["measured_at"].tolist()))
        for part in (used[used["measured_at"] == time],)
        if (part["edited_at"] < time).any()
    ]
    return summary


def statistics_of(frame: pd.DataFrame, side: str, seed: int = 0, *, intervals: bool = True) -> dict[str, Any]:
    """The statistics of one side of some rows of a frame (`analysis.summary.summarize_side`)."""
    names = [name.removeprefix(f"{side}/") for name in frame.columns if name.startswith(f"{side}/")]
    values = {name: frame[f"{side}/{name}"].to_numpy(dtype=float) for name in names}
    return summarize_side(values, seed=seed, intervals=intervals)


def scores_by_edits(frame: pd.DataFrame, *, seed: int = 0) -> list[dict[str, Any]]:
    """Scores against the number of edits: for each number at which all cases edited so far were measured, `edits`,
    `n_cases` and the statistics `post` of these cases.

    Args:
        frame: of `lifelong_frame`.
    """
    used = frame[frame["complete"].astype(bool)]
    points = []
    for time in sorted(set(used["measured_at"].tolist())):
        part = used[used["measured_at"] == time]
        edited = used.loc[used["edited_at"] <= time, "case_id"].nunique()
        if part["case_id"].nunique() == edited:
            points.append({"edits": int(time), "n_cases": len(part), "post": statistics_of(part, "post", seed)})
    return points


def retention_by_age(frame: pd.DataFrame, *, seed: int = 0) -> list[dict[str, Any]]:
    """What is left of an edit after more edits. For each class of ages: `later_edits` (their mean), `n` (pairs of a
    case and a time) and the statistics `post`.

    The classes end at 0, 1, 2, 5, 10, 20, 50, 100, … later edits. A case may count in several classes, and in one class
    several times, so intervals are those of independent pairs only by approximation.

    Args:
        frame: of `lifelong_frame`.
    """
    used = frame[frame["complete"].astype(bool)]
    ages = used["measured_at"] - used["edited_at"]
    classes = ages.map(_age_class)
    return [
        {
            "later_edits": float(ages[classes == last].mean()),
            "n": int((classes == last).sum()),
            "post": statistics_of(used[classes == last], "post", seed),
        }
        for last in sorted(classes.unique())
    ]


def _age_class(age: int) -> int:
    """The least of 0, 1, 2, 5, 10, 20, … that is not below an age."""
    last, factors = 1, itertools.cycle((2, 2.5, 2))
    if age <= 0:
        return 0
    while last < age:
        last = round(last * next(factors))
    return last
