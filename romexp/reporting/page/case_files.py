"""The cases of the page: a sample in the page itself, the others in files beside it, which it loads when asked.

A page that was opened from a disk may not read other files but scripts. So each file is a script that hands its cases
to the page, and no server is needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from romexp.analysis.studies import Study
from romexp.files import write_text
from romexp.reporting.page.cases import case_data, case_of, case_order

SAMPLE = 40
"""Most cases of one study that the page itself holds."""
MOST_SIDES = 40_000
"""Most sides of all studies in the page and beside it: seven editors and the unedited model on 5,000 cases."""
IN_FILE = 50
"""Number of cases in one file."""


def write_cases(
    study: Study, *, identifier: str, label: str, folder: Path, share: float, sample: int = SAMPLE, compared: Study
) -> dict[str, Any]:
    """Write the files of a study, and return what the page itself needs to know, as JSON-ready values.

    Args:
        identifier: id of the study in the page, and the beginning of the files' names.
        label: the study's heading.
        folder: where the files go; it lies beside the page.
        share: the part of `MOST_SIDES` that this study may take.
        sample: most cases in the page itself.
        compared: the study on the cases that its entries share, whose notes are shown; shared cases come first.
    """
    data = case_data(study, identifier=identifier, most_cases=sample, compared=compared, label=label)
    numbers = case_order(study, compared=compared)
    sides = len(data["entries"]) + 1
    held = numbers[: max(1, int(share * MOST_SIDES) // sides)]
    if len(held) <= len(data["cases"]):
        return data
    return data | _write(study, held, folder, identifier)


def _write(study: Study, numbers: Sequence[int], folder: Path, identifier: str) -> dict[str, Any]:
    """Write all cases into files of `IN_FILE`, and an index of them; return how the page finds them."""
    index = []
    for part, start in enumerate(range(0, len(numbers), IN_FILE)):
        cases = [case_of(study, number) for number in numbers[start : start + IN_FILE]]
        index += [[case[name] for name in ("id", "subject", "fact", "target_new", "target_true")] for case in cases]
        _script(folder / f"{identifier}-{part}.js", [identifier, part, cases])
    _script(folder / f"{identifier}-index.js", [identifier, None, index])
    return {"held": len(numbers), "folder": folder.name, "in_file": IN_FILE}


def _script(path: Path, arguments: Sequence[Any]) -> None:
    """A script with one call. What it passes is JSON, which is JavaScript too."""
    text = json.dumps(arguments, separators=(",", ":"), allow_nan=False)
    write_text(path, f"takeCases(...{text});\n")
