"""Writes edits as a PEFT adapter or as a whole model, and keeps what was written if it is right once loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args

from romexp.errors import ConfigError
from romexp.export.adapter import base_of, refuse_for_adapter, write_adapter
from romexp.export.card import write_card
from romexp.export.exported import ExportedFolder
from romexp.export.gather import FoundEdit
from romexp.export.measure import largest_rounding, measure_together
from romexp.export.verify import Reload, compare, in_fresh_process, nlls_in_memory, reload_request
from romexp.export.whole_model import refuse_for_whole_model, write_whole_model
from romexp.files import creating_folder
from romexp.lm.model import LanguageModel
from romexp.lm.saved_edit import ModelOrigin, check_made_for
from romexp.lm.weight_delta import WeightDelta, total
from romexp.results.identity import digest

Format = Literal["peft", "hf"]


def export_edits(
    lm: LanguageModel,
    edits: Sequence[FoundEdit],
    folder: Path,
    *,
    format: Format,
    source: str = "",
    revision: str | None = None,
    reload: Reload = in_fresh_process,
) -> ExportedFolder:
    """Write the model with all these edits, check what was written, and describe it in a model card.

    The edits are added to each other. Nothing is left behind if anything fails.

    Args:
        lm: the unedited model.
        edits: at least one, each of another prompt.
        folder: the new folder. It must not exist, or be empty, or hold the same export.
        format: `peft`, a LoRA adapter (low-rank edits alone), or `hf`, a whole model with its tokenizer.
        source: where `lm` can be loaded from (see `ModelOrigin`).
        revision: branch, tag or commit of `lm` on the hub.
        reload: loads what was written and scores the edited prompts.

    Raises:
        ConfigError: the edits cannot be exported in this format, or `folder` holds something else.
        DataError: an edit is of another model, or the loaded export is not the edited model.
    """
    delta = _stacked(lm, edits, format)
    origin = ModelOrigin.of(lm, source=source, revision=revision)
    inputs = _inputs(edits, origin, format)
    earlier = ExportedFolder.found_at(folder, inputs=inputs)
    request = reload_request(lm, edits, base=base_of(lm) if format == "peft" else None, revision=revision)
    expected = nlls_in_memory(lm, delta, request)

    def check(where: Path) -> dict[str, Any]:
        return compare(reload({**request, "folder": str(where.resolve())}), expected, request, folder)

    if earlier is not None:
        check(folder)
        return earlier
    measured = measure_together(lm, edits, delta)
    try:
        with creating_folder(folder.absolute()) as part:
            if format == "peft":
                write_adapter(lm, delta, part, revision=revision)
            else:
                write_whole_model(lm, delta, part)
            said = {"format": format, "model": asdict(origin), "base": request["base"], "inputs": inputs}
            said |= {"check": check(part) | {"rounding": largest_rounding(lm, delta) if format == "hf" else 0.0}}
            exported = ExportedFolder.describe(folder, said, edits=edits, measured=measured, delta=delta)
            exported.write(part)
            write_card(exported, edits, part)
    except OSError as error:
        raise ConfigError(f"output_dir: cannot write {folder}: {error.strerror or error}") from error
    return exported


def _stacked(lm: LanguageModel, edits: Sequence[FoundEdit], format: Format) -> WeightDelta:
    """The sum of the edits, if it can be exported in this format."""
    if format not in get_args(Format):
        raise ConfigError(f"format: expected {' or '.join(get_args(Format))}, not {format!r}")
    if not edits:
        raise ConfigError("edits: there are none to export")
    for edit in edits:
        check_made_for(lm, edit.saved, file=edit.label)
    delta = total([edit.saved.delta for edit in edits], keep_low_rank=format == "peft")
    if not delta.terms:
        raise ConfigError("the edits change nothing: there is nothing to export")
    if format == "peft":
        refuse_for_adapter(delta)
    else:
        refuse_for_whole_model(lm)
    return delta


def _inputs(edits: Sequence[FoundEdit], origin: ModelOrigin, format: Format) -> str:
    """A digest of everything that decides what is exported."""
    parts = [
        [edit.saved.request.text, edit.saved.request.target_new, _delta_digest(edit.saved.delta)] for edit in edits
    ]
    return digest([format, origin.digest, parts])


def _delta_digest(delta: WeightDelta) -> list[Any]:
    found = []
    for name, term in sorted(delta.terms.items()):
        tensors = [getattr(term, side) for side in ("left", "right", "value") if hasattr(term, side)]
        content = b"".join(tensor.detach().cpu().float().contiguous().numpy().tobytes() for tensor in tensors)
        found.append([name, hashlib.sha256(content).hexdigest()])
    return found
