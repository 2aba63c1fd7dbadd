"""An exported folder and its index file, `romexp.json`, which says what the folder was made from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import romexp
from romexp.errors import ConfigError
from romexp.export.gather import FoundEdit
from romexp.export.measure import TargetProbabilities
from romexp.files import write_text
from romexp.lm.weight_delta import LowRank, WeightDelta

INDEX = "romexp.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportedFolder:
    """A folder that `export_edits` has made.

    Attributes:
        path: the folder.
        said: the content of its index: `romexp` (version), `format`, `model` and `base` (where the base model is),
            `parameters`, `edits`, `check` and `inputs`.
    """

    path: Path
    said: Mapping[str, Any]

    @classmethod
    def found_at(cls, path: Path, *, inputs: str) -> ExportedFolder | None:
        """The same export, if `path` holds it; None if there is no folder or an empty one.

        Args:
            inputs: digest of what the export is made from.

        Raises:
            ConfigError: `path` holds something else.
        """
        index = path / INDEX
        if index.is_file():
            try:
                said = json.loads(index.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ConfigError(f"{index}: not JSON ({error}): give another output_dir") from error
            if isinstance(said, dict) and said.get("inputs") == inputs:
                return cls(path=path, said=said)
            raise ConfigError(f"output_dir: {path} holds an export of other edits: give another folder")
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"output_dir: {path} is not an empty folder: give another one")
        return None

    @classmethod
    def describe(
        cls,
        path: Path,
        said: Mapping[str, Any],
        *,
        edits: Sequence[FoundEdit],
        measured: Sequence[TargetProbabilities],
        delta: WeightDelta,
    ) -> ExportedFolder:
        """The description of a new export; `write` stores it.

        Args:
            said: the entries that are not made here.
            edits: the edits, with what was `measured` for each.
            delta: their sum.
        """
        parameters = {
            name: {
                "shape": list(term.shape),
                "rank": term.left.shape[1] if isinstance(term, LowRank) else None,
                "norm": WeightDelta(terms={name: term}).norm(),
            }
            for name, term in delta.terms.items()
        }
        listed = [
            {
                "case_id": edit.saved.case_id,
                "request": asdict(edit.saved.request),
                "method": edit.saved.method,
                "settings": dict(edit.saved.settings),
                "probability": asdict(values),
            }
            for edit, values in zip(edits, measured, strict=True)
        ]
        own = {"romexp": romexp.__version__, "parameters": parameters, "edits": listed}
        return cls(path=path, said={**said, **own})

    def write(self, folder: Path) -> None:
        """Store the index in a folder, which may still have another name than `path`."""
        write_text(folder / INDEX, json.dumps(self.said, indent=2, ensure_ascii=False) + "\n")
