"""Describes the runs behind the page's numbers, from their manifests (docs/method.md §11)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from romexp.analysis.missing import command
from romexp.results.find import FoundRun
from romexp.results.settings import free_name

MOST_ASIDE = 50
"""Most records set aside that the page lists for one run."""


def run_ids(runs: Sequence[FoundRun]) -> dict[str, str]:
    """The id of each run's HTML element, by the run's folder. It is made of the hash, so that links stay valid."""
    taken: set[str] = set()
    return {str(run.path): free_name(f"run-{run.manifest.get('hash') or run.path.name}", taken, "-") for run in runs}


def describe_run(run: FoundRun, *, identifier: str, label: str, group: str) -> dict[str, Any]:
    """Values of one run for the template: its labels, facts by name, and the records set aside with their reasons.

    Args:
        identifier: id of the run's HTML element.
        label: label of the row that the run belongs to.
        group: label of that row's study.
    """
    why, what = ("not traced", "facts") if run.task == "trace" else ("set aside by the editor", "cases")
    aside = [*_aside(run.set_aside, why), *_aside(run.rejected, "not loaded")]
    expected = f"{run.expected} {what}" if run.expected is not None else f"{what} not counted"
    return {
        "id": identifier,
        "label": label,
        "group": group,
        "model": str(run.names.get("model", "")),
        "dataset": str(run.names.get("dataset", "")),
        "editors": [run.editor_label] if run.editor_label else [],
        "status": run.status,
        "cases": expected,
        "facts": [(name, value) for name, value in _facts(run) if value],
        "aside": aside[:MOST_ASIDE],
        "more_aside": max(0, len(aside) - MOST_ASIDE),
        "identity": json.dumps(run.identity, indent=2, ensure_ascii=False),
    }


def _facts(run: FoundRun) -> list[tuple[str, str]]:
    manifest = run.manifest
    model, dataset = manifest.get("model", {}), manifest.get("dataset", {})
    sessions = manifest.get("sessions") or [{}]
    last: Mapping[str, Any] = sessions[-1]
    libraries = ", ".join(f"{name} {version}" for name, version in (last.get("libraries") or {}).items())
    return [
        ("Command", command(*run.overrides)),
        ("Folder", str(run.path)),
        ("Status", run.status),
        ("Error", str(manifest.get("error", ""))),
        ("Model", ", ".join(filter(None, [_text(model, "name"), _text(model, "dtype").removeprefix("torch.")]))),
        ("Matrix products", _precision(model)),
        ("Model digest", _text(model, "digest")),
        ("Device", ", ".join(filter(None, [_text(model, "device"), _hardware(last)]))),
        ("Data", ", ".join(filter(None, [_text(dataset, "name"), _text(dataset, "path")]))),
        ("Data sha256", _text(dataset, "sha256")),
        ("Seed", _text(manifest, "seed")),
        ("romexp", _text(last, "romexp")),
        ("Commit", _text(last, "commit")),
        ("Commit of the working folder", _text(last, "folder_commit")),
        ("Host", _text(last, "host")),
        ("Python", _text(last, "python")),
        ("Libraries", libraries),
        ("Platform", _text(last, "platform")),
        ("Words", _text(manifest, "word_tokenizer")),
        ("Sessions", "; ".join(_session(session) for session in sessions if session)),
    ]


def _session(session: Mapping[str, Any]) -> str:
    seconds = (session.get("timings") or {}).get("total")
    end = session.get("finished")
    return f"{session.get('started', '?')} to {end or 'not finished'}" + (f" ({seconds:.0f} s)" if seconds else "")


def _hardware(session: Mapping[str, Any]) -> str:
    gpu = session.get("gpus") or session.get("gpu")
    if gpu:
        return ", ".join(map(str, gpu)) if isinstance(gpu, (list, tuple)) else str(gpu)
    return f"{session['threads']} of {session['cpus']} cores" if {"threads", "cpus"} <= set(session) else ""


def _aside(records: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    lines = []
    for record in records:
        key = next((key for key in ("case_id", "index") if key in record), "")
        place = f"{key.removesuffix('_id')} {record[key]}" if key else "record"
        lines.append(f"{place}, {what}: {record.get('field', '')} {record.get('reason', '')}".strip())
    return lines


def _precision(model: Mapping[str, Any]) -> str:
    """The precision of matrix products, where it was not the usual one; and if it changed nothing, that too."""
    found = _text(model, "matmul_precision")
    without = " (no effect on this machine)" if model.get("matmul_precision_has_effect") is False else ""
    return "" if found == "highest" else found + without


def _text(mapping: Mapping[str, Any], key: str) -> str:
    value = mapping.get(key)
    return "" if value is None else str(value)
