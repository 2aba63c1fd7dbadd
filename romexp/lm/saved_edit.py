"""An edit in a file: what it adds to the weights, the fact that it is about, and the model that it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from romexp.errors import DataError
from romexp.facts import EditRequest
from romexp.lm.apply_delta import check_fits
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta, read_metadata


@dataclass(frozen=True, kw_only=True)
class ModelOrigin:
    """Which model an edit is for. What is not known is empty.

    Attributes:
        name: short name.
        digest: `LanguageModel.digest` of the unedited model.
        source: where it was loaded from: a name of the configuration group `model`, a folder, or a hub id.
        revision: branch, tag or commit on the hub.
        dtype: type of the weights, as `float32`.
    """

    name: str = ""
    digest: str = ""
    source: str = ""
    revision: str = ""
    dtype: str = ""

    @classmethod
    def of(cls, lm: LanguageModel, *, source: str, revision: str | None = None) -> ModelOrigin:
        """The origin of a loaded model. The path of a folder is stored as an absolute one."""
        path = Path(source).expanduser()
        is_path = path.is_absolute() or source.startswith(".") or (len(path.parts) > 1 and path.exists())
        return cls(
            name=lm.name,
            digest=lm.digest,
            source=str(path.resolve()) if source and is_path else source,
            revision=revision or "",
            dtype=str(lm.dtype).removeprefix("torch."),
        )

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name or "an unnamed model", self.digest and f"({self.digest})")))


@dataclass(frozen=True, kw_only=True, eq=False)
class SavedEdit:
    """An edit with what is known about it.

    Attributes:
        delta: what it adds to the weights.
        request: the fact.
        method: the editor's label, as `ROME`; empty if unknown.
        settings: the editor's hyper-parameters, as JSON values.
        model: the model that it is for.
        case_id: the case that it belongs to; None if it belongs to none.
    """

    delta: WeightDelta
    request: EditRequest
    method: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: ModelOrigin = field(default_factory=ModelOrigin)
    case_id: int | None = None

    def save(self, path: Path) -> None:
        """Write a safetensors file, atomically (docs/method.md §11.1)."""
        metadata = {
            "case_id": self.case_id,
            "request": asdict(self.request),
            "method": self.method,
            "settings": dict(self.settings),
            "model": asdict(self.model),
            "shapes": {name: list(term.shape) for name, term in self.delta.terms.items()},
        }
        self.delta.save(path, metadata=metadata)

    @classmethod
    def load(cls, path: Path) -> SavedEdit:
        """Read a file that `save` wrote. Files of an older version may lack the model and the method.

        Raises:
            DataError: the file is missing or damaged, or does not say which fact it is about.
        """
        delta, said = WeightDelta.load(path), read_metadata(path)
        case_id = said.get("case_id")
        return cls(
            delta=delta,
            request=_request(said, path),
            method=str(said.get("method") or ""),
            settings=_mapping(said.get("settings")),
            model=ModelOrigin(**_texts(ModelOrigin, _mapping(said.get("model")))),
            case_id=case_id if isinstance(case_id, int) else None,
        )


def check_made_for(lm: LanguageModel, edit: SavedEdit, *, file: str) -> None:
    """Check that an edit is one of this model.

    Args:
        file: names the edit in messages.

    Raises:
        DataError: it was made for another model, or its terms do not fit the parameters.
    """
    origin, own = edit.model, str(lm.dtype).removeprefix("torch.")
    if origin.digest and origin.digest != lm.digest:
        types = f"; its weights were {origin.dtype}, these are {own}" if origin.dtype not in ("", own) else ""
        raise DataError(f"{file}: made for {origin}, not for {lm.name} ({lm.digest}){types}")
    try:
        for name, term in edit.delta.terms.items():
            check_fits(lm, name, term)
    except (KeyError, ValueError) as error:
        raise DataError(f"{file}: not an edit of {lm.name} ({error.args[0]})") from error


def _request(said: Mapping[str, Any], path: Path) -> EditRequest:
    """The fact. In older files its fields stand among the other metadata."""
    found = _texts(EditRequest, _mapping(said.get("request")) or said)
    if any(not found.get(name) for name in ("subject", "prompt", "target_new")):
        raise DataError(f"{path}: holds a delta, but not the fact that it is about (was it written by `save`?)")
    return EditRequest(**found)


def _texts(cls: Any, values: Mapping[str, Any]) -> dict[str, str]:
    """The values of a dataclass's fields that are texts."""
    return {f.name: values[f.name] for f in fields(cls) if isinstance(values.get(f.name), str)}


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
