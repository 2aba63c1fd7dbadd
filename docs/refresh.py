"""Writes what README.md shows: the output of the default run, the chart of all editors, the average causal trace.

    python docs/refresh.py

Nothing in them is typed by hand. Run it when the shipped model, a metric or the table's form changes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from romexp.reporting.trace_figures import average_heatmaps

ROOT = Path(__file__).resolve().parent.parent
EDITORS = {"rome": "ROME", "ft": "FT", "ft_l": "FT+L"}
METRICS = {"ES": "ES\nthe edit", "PS": "PS\nparaphrases", "NS": "NS\nneighbours", "S": "S\nall three"}
COLORS = {"unedited": "#9aa0a6", "FT": "#e69f00", "FT+L": "#56b4e9", "ROME": "#d1495b"}
TRACE = ["task=trace", "dataset.shard=1/4"]
"""Every fourth known fact of minifact, windows of 3 layers: minutes."""
MARKERS = re.compile(r"(<!-- refresh: output -->\n).*?(<!-- /refresh -->)", re.DOTALL)


def main() -> None:
    summaries: dict[str, Mapping[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for editor, label in EDITORS.items():
            shown, summary = run([] if editor == "rome" else [f"editor={editor}"], folder)
            summaries[label] = summary["post"]
            summaries["unedited"] = summary["pre"]
            if editor == "rome":
                replace_output(ROOT / "README.md", shown)
        save(average_heatmaps(run(TRACE, folder)[1], window=3, model="minifact"), ROOT / "docs" / "trace.svg")
    draw(summaries, ROOT / "docs" / "editors.svg")


def replace_output(readme: Path, shown: str) -> None:
    """Put `shown` between the markers."""
    text = readme.read_text(encoding="utf-8")
    readme.write_text(MARKERS.sub(lambda match: match[1] + shown + match[2], text), encoding="utf-8")


def run(arguments: Sequence[str], folder: Path) -> tuple[str, dict[str, Any]]:
    """What `romexp` prints, as a block of Markdown, and the summary it wrote."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WANDB_MODE": "offline", "COLUMNS": "140"}
    done = subprocess.run(
        [sys.executable, "-m", "romexp", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    results = re.search(r"^results: (\S+)$", done.stdout, re.MULTILINE)
    assert results, done.stdout
    output = done.stdout.replace(f"{folder}/", "").rstrip()
    summary = json.loads((folder / results[1] / "summary.json").read_text(encoding="utf-8"))
    return f"```text\n{output}\n```\n", summary


def draw(summaries: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Grouped bars with 95 % intervals."""
    mpl.rcParams |= {"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
    width = 0.8 / len(COLORS)
    for i, (label, color) in enumerate(COLORS.items()):
        values = [summaries[label][metric] for metric in METRICS]
        means = [value["mean"] for value in values]
        places = [x + (i - (len(COLORS) - 1) / 2) * width for x in range(len(METRICS))]
        axes.bar(places, means, width * 0.92, color=color, label=label)
        below, above = zip(*map(whiskers, values), strict=True)
        axes.errorbar(places, means, yerr=[below, above], fmt="none", ecolor="#333333", elinewidth=1, capsize=2)
        for place, mean, reach in zip(places, means, above, strict=True):
            axes.text(place, mean + reach + 2, f"{mean:.0f}", ha="center", fontsize=9)
    axes.set_xticks(range(len(METRICS)), list(METRICS.values()))
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 25))
    axes.set_ylabel("% (larger is better)")
    axes.legend(ncols=len(COLORS), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """The same figure gives the same bytes."""
    with mpl.rc_context({"svg.hashsalt": "romexp"}):
        figure.savefig(path, dpi=150, metadata={"Date": None, "Creator": None}, facecolor="white")


def whiskers(value: Mapping[str, Any]) -> tuple[float, float]:
    """How far the 95 % interval reaches below and above the mean, within 0 … 100."""
    mean = value["mean"]
    if value["half_width"] is not None:
        return min(value["half_width"], mean), min(value["half_width"], 100 - mean)
    low, high = value["interval"]
    return max(mean - low, 0.0), max(high - mean, 0.0)


if __name__ == "__main__":
    main()
