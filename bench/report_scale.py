"""Makes runs at random and measures `task=report` on them: time, memory, and the size of the page, by number of runs.

    python bench/report_scale.py --runs 1,10,40 --cases 7500

Rows have the form and about the size of those of CounterFact. `--texts` adds generated texts. The results go to a
temporary folder, or to `--folder`, where runs that are there already are used again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"rewrite_prompts": 1, "paraphrase_prompts": 2, "neighborhood_prompts": 10, "attribute_prompts": 10}
EDITORS = ("rome", "ft", "ft_l", "kn", "mend", "ke", "memit", "ft_attn")
LABELS = {"rome": "ROME", "ft": "FT", "ft_l": "FT+L", "kn": "KN", "mend": "MEND", "ke": "KE", "memit": "MEMIT"}
WORDS = ("the", "city", "is", "known", "for", "its", "old", "bridge", "and", "was", "built", "by", "a", "king", "who")


def write_run(folder: Path, *, number: int, cases: int, texts: int) -> None:
    """One run of the study: an editor at a layer of its own, whose edits succeed the more the smaller its number."""
    editor = EDITORS[number % len(EDITORS)]
    random, before = np.random.default_rng([7, number]), np.random.default_rng(7)
    folder.mkdir(parents=True)
    with (folder / "cases.jsonl").open("w", encoding="utf-8") as file:
        for case in range(cases):
            row = _row(case, before, random, shift=5 - number % 7, texts=texts)
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    manifest = {
        "identity": {
            "task": "edit",
            "model": {"digest": "made up"},
            "dataset": {"type": "CounterFact", "limit": None},
            "editor": {"type": editor, "layer": number // len(EDITORS)},
            "evaluator": {"type": "CounterFactEvaluator", "generation": "on" if texts else "off"},
            "seed": None,
        },
        "names": {"task": "edit", "model": "made-up", "dataset": "counterfact", "editor": editor},
        "hash": f"{number:012d}",
        "overrides": ["task=edit", f"editor={editor}", f"editor.layer={number // len(EDITORS)}"],
        "editor_label": LABELS.get(editor, editor),
        "dataset": {"name": "counterfact", "cases": cases},
        "sessions": [{"started": f"2026-01-01T00:00:{number % 60:02d}"}],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "status").write_text("done\n", encoding="utf-8")


def _row(
    case: int, before: np.random.Generator, after: np.random.Generator, *, shift: float, texts: int
) -> dict[str, Any]:
    subject = f"Subject number {case}"
    asked = {
        kind: [f"{subject}, of kind {kind} {i}, lives in the city of" for i in range(n)] for kind, n in KINDS.items()
    }
    if texts:
        asked["generation_prompts"] = [f"{subject} is known for thing {i % 3}" for i in range(texts)]
    return {
        "case_id": case,
        "requested_rewrite": {
            "subject": subject,
            "prompt": "{} lives in the city of",
            "target_new": f"Newtown {case % 97}",
            "target_true": f"Oldtown {case % 89}",
            "relation_id": "P937",
            "target_new_id": "Q1",
        },
        "prompts": asked,
        "pre": _side(before, -3.0, asked.get("generation_prompts", [])),
        "post": _side(after, shift, asked.get("generation_prompts", [])),
        "edit": {"losses": [round(float(x), 6) for x in after.random(20)], "layer": 5},
        "time": 1.25,
    }


def _side(random: np.random.Generator, shift: float, prompts: list[str]) -> dict[str, Any]:
    side: dict[str, Any] = {}
    for kind, n in KINDS.items():
        toward = shift if kind[0] in "rp" else -2.0
        pairs = np.abs(8 + random.normal(size=(n, 2)) * 2 - np.array([toward, 0.0]))
        side[kind] = pairs.round(12).tolist()
    if prompts:
        side["text"] = [f"{prompt} {' '.join(random.choice(WORDS, 90))}" for prompt in prompts]
        side |= {"ngram_entropy": 6.0 + float(random.random()), "reference_score": 0.3 * float(random.random())}
    return side


def measure(results: Path, report: Path) -> dict[str, float]:
    """Seconds, processor seconds, peak memory and size of a report in a process of its own."""
    command = [sys.executable, "-m", "romexp", "task=report", "page=true", "tracker=none"]
    command += [f"task.results=[{results}]", f"output_dir={report}"]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: ended with {status}")
    beside = [file for file in report.rglob("*") if file.is_file() and file.suffix == ".js"]
    return {
        "seconds": time.perf_counter() - begun,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "peak_gb": used.ru_maxrss * 1024 / 1e9,
        "page_mb": (report / "page.html").stat().st_size / 1e6,
        "beside_mb": sum(file.stat().st_size for file in beside) / 1e6,
    }


def main() -> None:
    """Measure for each number of runs, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="1,10,40", help="numbers of runs, separated by commas")
    parser.add_argument("--cases", type=int, default=7500, help="cases of each run")
    parser.add_argument("--texts", type=int, default=0, help="generated texts of each case, before and after")
    parser.add_argument("--folder", type=Path, default=None, help="where runs and reports go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        print("| runs | cases | seconds | processor seconds | peak GB | page MB | beside it MB |")
        print("|---|---|---|---|---|---|---|")
        for count in map(int, options.runs.split(",")):
            study = root / f"study{count}"
            for number in range(count):
                if not (study / f"{number}" / "status").is_file():
                    write_run(study / f"{number}", number=number, cases=options.cases, texts=options.texts)
            report = Path(tempfile.mkdtemp(dir=temporary))
            row = measure(study, report)
            print(f"| {count} | {options.cases} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |")


if __name__ == "__main__":
    main()
