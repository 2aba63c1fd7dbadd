"""Writes what README.md and docs/ show: the first minute's screen and picture, the default run's output, table and
chart of all editors, the average causal trace; and what comes out of the tutorial notebook.

    python docs/refresh.py

Nothing in them is typed by hand. Run it when the shipped model, a metric or the table's form changes.
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import tutorial

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from romexp.reporting.figures.style import editor_color, interval
from romexp.reporting.figures.traces import average_heatmaps
from romexp.reporting.tables.run import TableRow, cell, columns_of
from romexp.results.find import find_runs

ROOT = Path(__file__).resolve().parent.parent
SWEEP = ["-cn", "editors_minifact"]
METRICS = {"ES": "ES\nthe edit", "PS": "PS\nparaphrases", "NS": "NS\nneighbours", "S": "S\nall three"}
EDITORS = {
    "unedited": "none",
    "FT": "ft",
    "FT+L": "ft_l",
    "AttnEdit": "ft_attn",
    "KN": "kn",
    "KE": "ke",
    "MEND": "mend",
    "ROME": "rome",
}
"""Every editor's label and option name, in the order of the paper's Table 4."""
FACT = ["model=smollm2", "subject=Eiffel Tower"]
TRY = ["task=try", *FACT, "prompt=The {} is located in the city of", "target=Rome"]
TRACE_ONE = ["task=trace", *FACT, "prompt=The Eiffel Tower is located in the city of"]
"""Both need `make smollm2`."""
TRACE = ["task=trace", "dataset.shard=1/4"]
"""Every fourth known fact of minifact, windows of 3 layers: minutes."""
README = ROOT / "README.md"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown, _ = run(TRY, folder / "try")
        put("try", f"```text\n{shown.strip()}\n```")
        _, results = run(TRACE_ONE, folder / "trace_one")
        shutil.copy(results / "figures" / "trace_0.png", ROOT / "docs" / "eiffel_tower.png")
        shown, _ = run([], folder / "one")
        put("output", f"```text\n{shown}\n```")
        shown, _ = run(SWEEP, folder / "all")
        summaries = by_editor(folder / "all")
        put("editors", editors_table(summaries))
        draw(summaries, ROOT / "docs" / "editors.svg")
        shown, results = run(TRACE, folder / "trace")
        summary = json.loads((results / "summary.json").read_text(encoding="utf-8"))
        save(average_heatmaps(summary, window=3, model="minifact"), ROOT / "docs" / "trace.svg")
        tutorial.write(tutorial.executed(folder))


def put(what: str, text: str) -> None:
    """Put a text between the README's markers of this name."""
    markers = re.compile(rf"(<!-- refresh: {what} -->\n).*?(\n<!-- /refresh -->)", re.DOTALL)
    page = README.read_text(encoding="utf-8")
    assert markers.search(page), what
    README.write_text(markers.sub(lambda match: match[1] + text + match[2], page), encoding="utf-8")


def run(arguments: Sequence[str], folder: Path) -> tuple[str, Path]:
    """What `romexp` prints, and the folder of results that it names."""
    folder.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "romexp", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    results = re.search(r"^(?:results|edit): (\S+)$", done.stdout, re.MULTILINE)
    assert results, done.stdout
    lines = done.stdout.replace(f"{folder}/", "").rstrip().splitlines()
    return "\n".join(line.rstrip() for line in lines), folder / results[1]


def by_editor(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Metrics by row label: the unedited model's, then every editor's, as `EDITORS` orders them."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in find_runs([folder]).runs:
        summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
        found |= {"unedited": summary["pre"], run.editor_label: summary["post"]}
    assert set(found) == set(EDITORS), found.keys()
    return {label: found[label] for label in EDITORS}


def editors_table(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown, with the day and the command."""
    rows = [TableRow(label=label, metrics=metrics) for label, metrics in summaries.items()]
    names = columns_of(rows)
    lines = [["editor", *names], ["---", *["---:"] * len(names)]]
    lines += [[row.label, *(cell(row.metrics.get(name)) for name in names)] for row in rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    count = max(metrics["ES"]["n"] for metrics in summaries.values())
    day = datetime.now(UTC).date().isoformat()
    return f"{table}\n\n`romexp {' '.join(SWEEP)}`, {day}: {count} facts that no editor was tuned or trained on."


def draw(summaries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Grouped bars with 95 % intervals."""
    mpl.rcParams |= {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(figsize=(11, 3.8), layout="constrained")
    width = 0.8 / len(EDITORS)
    for i, (label, editor) in enumerate(EDITORS.items()):
        values = [summaries[label][metric] for metric in METRICS]
        means = [value["mean"] for value in values]
        places = [x + (i - (len(EDITORS) - 1) / 2) * width for x in range(len(METRICS))]
        axes.bar(places, means, width * 0.92, color=editor_color(editor), label=label)
        below, above = zip(*map(whiskers, METRICS, values), strict=True)
        axes.errorbar(places, means, yerr=[below, above], fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
        for place, mean, reach in zip(places, means, above, strict=True):
            axes.text(place, mean + reach + 2, f"{mean:.0f}", ha="center", fontsize=7.5)
    axes.set_xticks(range(len(METRICS)), list(METRICS.values()))
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    axes.set_ylabel("% (larger is better)")
    axes.legend(ncols=len(EDITORS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """The same figure gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "romexp"}):
        figure.savefig(path, dpi=150, metadata={"Date": None, "Creator": None}, facecolor="white")


def whiskers(metric: str, value: Mapping[str, Any]) -> tuple[float, float]:
    """How far the 95 % interval reaches below and above the mean."""
    low, high = interval(value, metric)
    if math.isnan(low):
        return 0.0, 0.0
    return max(value["mean"] - low, 0.0), max(high - value["mean"], 0.0)


if __name__ == "__main__":
    main()
