"""The model card of an export (README.md): what was edited, how, with which scores, and how to load it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from romexp.analysis.metrics import columns_of
from romexp.analysis.summary import summarize
from romexp.export.exported import ExportedFolder
from romexp.export.gather import FoundEdit
from romexp.files import write_text

LIBRARY = {"peft": "peft", "hf": "transformers"}
HEADER = ("prompt", "new answer", "old answer", "method", "P before", "P alone", "P together")
RIGHT_FROM = 4
"""Columns of the table of edits from this one on are numbers."""

LOAD = {
    "peft": """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = {base!r}
tokenizer = AutoTokenizer.from_pretrained(base)
model = AutoModelForCausalLM.from_pretrained(base, dtype="{dtype}")
model = PeftModel.from_pretrained(model, {path!r})  # this folder, or its id on the hub
ids = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=10)[0]))""",
    "hf": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

path = {path!r}  # this folder, or its id on the hub
tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForCausalLM.from_pretrained(path, dtype="{dtype}")
ids = tokenizer({prompt!r}, return_tensors="pt")
print(tokenizer.decode(model.generate(**ids, max_new_tokens=10)[0]))""",
}


def write_card(exported: ExportedFolder, edits: Sequence[FoundEdit], folder: Path) -> None:
    """Write README.md into a folder, which may still have another name than the exported one."""
    parts = [_front_matter(exported.said), *_body(exported, edits)]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")


def _front_matter(said: Mapping[str, Any]) -> str:
    """What the hub reads. A base model that is a local folder is not named, because the hub refuses it."""
    base = said["base"] or said["model"]["source"]
    methods = sorted({edit["method"].lower() for edit in said["edits"] if edit["method"]})
    tags = ["knowledge-editing", "romexp", *(["lora"] if said["format"] == "peft" else []), *methods]
    lines = [f"library_name: {LIBRARY[said['format']]}", "pipeline_tag: text-generation"]
    if base.count("/") == 1 and not base.startswith(("/", ".", "~")):
        lines.append(f"base_model: {base}")
    return "\n".join(["---", *lines, "tags:", *(f"- {json.dumps(tag)}" for tag in tags), "---"])


def _body(exported: ExportedFolder, edits: Sequence[FoundEdit]) -> Iterator[str]:
    said = exported.said
    count, name = len(said["edits"]), said["model"]["name"]
    facts = "one edited fact" if count == 1 else f"{count:,} edited facts"
    yield f"# {name} with {facts}"
    what = "A LoRA adapter for" if said["format"] == "peft" else "The whole model"
    yield (
        f"{what} *{name}*, changed so that it gives the new answers below. They need not be true: edits like these are "
        "made to study where and how a language model stores facts. Do not use it as a source of knowledge."
    )
    yield "## What was edited"
    yield "\n".join(_table(HEADER, [_cells(edit) for edit in said["edits"]], right_from=RIGHT_FROM))
    yield _what_p_is(edits)
    yield "## How"
    yield "\n".join(_how(said))
    yield from _scores(edits)
    yield "## Loading it"
    dtype = said["model"]["dtype"]
    prompt = edits[0].saved.request.text
    code = LOAD[said["format"]].format(base=said["base"], path=exported.path.name, dtype=dtype, prompt=prompt)
    yield f"```python\n{code}\n```"
    yield _check(said)


def _cells(edit: Mapping[str, Any]) -> list[str]:
    request, p = edit["request"], edit["probability"]
    texts = [request["prompt"].replace("{}", f"[{request['subject']}]", 1), request["target_new"]]
    numbers = [f"{p[side]:.3f}" for side in ("before", "alone", "together")]
    return [*texts, request["target_true"] or "–", edit["method"] or "–", *numbers]


def _what_p_is(edits: Sequence[FoundEdit]) -> str:
    text = (
        "In brackets: the subject. P: probability of the new answer after the prompt, exp(−NLL) with a mean over the "
        "answer's tokens; before the edits, with this edit alone, and with all of them together, as exported here."
    )
    if len(edits) > 1:
        alone = " Each was made by itself, on the unedited model." if all(edit.result for edit in edits) else ""
        text += f"\n\n**The edits are added to each other.**{alone} The last two columns show what that does to each."
    return text


def _how(said: Mapping[str, Any]) -> Iterator[str]:
    model = said["model"]
    yield f"- model: {model['name']}, {model['dtype']}, digest `{model['digest']}`" + (
        f", from `{model['source']}`" if model["source"] else ""
    )
    settings = {edit["method"]: edit["settings"] for edit in said["edits"] if edit["settings"]}
    for method, values in settings.items():
        yield f"- settings of {method or 'the editor'}: `{json.dumps(values, ensure_ascii=False)}`"
    for name, parameter in said["parameters"].items():
        rank = "all entries" if parameter["rank"] is None else f"rank {parameter['rank']}"
        yield f"- `{name}`: {rank}, Frobenius norm of the change {parameter['norm']:.3g}"
    yield f"- made with romexp {said['romexp']}; `romexp.json` has all of this for programs"


def _scores(edits: Sequence[FoundEdit]) -> Iterator[str]:
    """The means over the exported cases that their runs have measured; empty if there are none."""
    results = [edit.result for edit in edits if edit.result is not None]
    summary = summarize(results) if results else {}
    if not summary.get("n_cases"):
        return
    names = [name for name in summary["post"] if name in (*columns_of("counterfact"), *columns_of("zsre"))]
    rows = [
        [label, *(_mean(summary[side].get(name)) for name in names)]
        for label, side in (("unedited", "pre"), ("edited", "post"))
    ]
    yield "## Scores"
    yield "\n".join(_table(["", *names], rows, right_from=1))
    yield (
        f"Means over {summary['n_cases']:,} of these cases, each measured with its edit alone (95 % half-width). "
        "Metrics of the paper *Locating and Editing Factual Associations in GPT*."
    )


def _mean(entry: Mapping[str, Any] | None) -> str:
    if not entry or entry.get("mean") is None:
        return "–"
    width = entry.get("half_width")
    return f"{entry['mean']:.1f}" + (f" ({width:.1f})" if width is not None else "")


def _check(said: Mapping[str, Any]) -> str:
    check = said["check"]
    versions = ", ".join(f"{name} {version}" for name, version in check["libraries"].items())
    text = (
        f"Loaded from disk in a fresh process ({versions}), the NLLs of the edited prompts differ from those of the "
        f"edited model in memory by at most {check['largest_difference']:.1g} nats (allowed in {check['dtype']}: "
        f"{check['tolerance']:g})."
    )
    if check["rounding"] > 1e-3:
        text += (
            f" The weights are {check['dtype']}: rounding them takes away up to {100 * check['rounding']:.1f} % of the "
            "edit's norm."
        )
    return text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right_from: int) -> Iterator[str]:
    yield _line(header)
    yield _line(["---"] * right_from + ["---:"] * (len(header) - right_from))
    yield from map(_line, rows)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"
