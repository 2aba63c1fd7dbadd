"""Saves and loads trained edit networks: safetensors, with the network's configuration as JSON in the metadata."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from romexp.editors.learned.authors import read_published
from romexp.editors.learned.base import EditNetwork
from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork
from romexp.errors import DataError
from romexp.files import file_sha256
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors
from romexp.os_errors import describe

_log = logging.getLogger(__name__)

FORMAT = "romexp_edit_network"
"""Key of the metadata."""
AUTHORS = ".pt"
"""Suffix of the authors' files."""
KINDS: Mapping[str, type[EditNetwork]] = {"mend": MendNetwork, "ke": KeNetwork}


def build(config: Mapping[str, Any]) -> EditNetwork:
    """Make a network with initial weights from an `EditNetwork.config`.

    Raises:
        DataError: it is not the configuration of an edit network.
    """
    try:
        shapes = {name: (int(n_in), int(n_out)) for name, (n_in, n_out) in config["parameters"].items()}
        return KINDS[config["kind"]](shapes, **config["sizes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"not the configuration of an edit network: {error!r}") from error


def save(network: EditNetwork, path: Path, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write weights, statistics and configuration of a network to a file, atomically.

    Args:
        metadata: JSON-ready facts about the training, which are stored too.
    """
    description = {"config": network.config, "training": dict(metadata or {})}
    write_tensors(path, network.state_dict(), {FORMAT: json.dumps(description)})


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a file that `save` wrote.

    Returns:
        A dictionary with `config` and `training`, and the tensors by name.

    Raises:
        DataError: the file is missing or damaged, or holds no edit network.
    """
    if not Path(path).is_file():
        raise DataError(f"no checkpoint {path}")
    try:
        metadata, tensors = read_tensors(path)
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file ({error})") from error
    except OSError as error:
        raise DataError(describe(error)) from error
    if FORMAT not in metadata:
        raise DataError(f"{path}: a safetensors file, but of no edit network")
    try:
        description = json.loads(metadata[FORMAT])
        description["config"]["kind"]
        if not isinstance(description.get("training", {}), dict):
            raise TypeError("the facts about the training are not an object")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: its metadata are not those of an edit network") from error
    return description, tensors


def digest(path: Path) -> str:
    """A hash (16 hexadecimal digits) over what affects the edits of a checkpoint.

    It covers configuration and weights, but neither the path nor the facts about the training. For a file of the
    authors it covers the whole file.

    Raises:
        DataError: the file is missing or damaged, or holds no edit network.
    """
    path = Path(path)
    if path.suffix == AUTHORS and path.is_file():
        return file_sha256(path)[:16]
    description, tensors = read(path)
    content_hash = hashlib.sha256(json.dumps(description["config"], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        content_hash.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content_hash.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return content_hash.hexdigest()[:16]


def load(path: Path, lm: LanguageModel | None = None) -> EditNetwork:
    """Load a network, in evaluation mode, from a safetensors file of ours or from a file of the authors (`.pt`).

    A warning is logged if the network was trained for a model of the same widths but with other weights.

    Args:
        lm: the model to edit, on whose device the network is put. Its parameters must have the names and shapes of the
            edited parameters. It is needed for a file of the authors, which does not name these parameters.

    Raises:
        DataError: the file is missing or damaged, holds no edit network, or does not fit the model.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no checkpoint {path}")
    trained_for = None
    if path.suffix == AUTHORS:
        if lm is None:
            raise DataError(f"{path}: to read a file of the authors, the model must be given too")
        config, tensors = read_published(path, lm)
    else:
        description, tensors = read(path)
        config, trained_for = description["config"], description.get("training", {}).get("model")
    try:
        network = build(config)
        network.load_state_dict(tensors)
    except (DataError, RuntimeError, MemoryError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    if lm is not None:
        _check_fits(network, lm, path)
        network.to(lm.device)
        if trained_for not in (None, lm.digest):
            _log.warning("%s was trained for a model of other weights, or in another dtype, than %r", path, lm.name)
    return network.eval()


def _check_fits(network: EditNetwork, lm: LanguageModel, path: Path) -> None:
    """Check that the edited parameters exist in the model with the same shapes.

    Raises:
        DataError: they do not, or the model's vocabulary is larger than that of a KE network.
    """
    for name, shape in network.shapes.items():
        try:
            found = tuple(weight_in_out(lm, name).shape)
        except AttributeError as error:
            raise DataError(f"{path}: made for a model with {name}, which {lm.name!r} lacks") from error
        if found != shape:
            raise DataError(f"{path}: made for {name} of {shape} (in × out), but in {lm.name!r} it is {found}")
    vocabulary = lm.module(lm.architecture.embedding).weight.shape[0]  # type: ignore[union-attr, index]
    if isinstance(network, KeNetwork) and network.vocabulary < min(len(lm.tokenizer), int(vocabulary)):
        raise DataError(f"{path}: made for {network.vocabulary} tokens, but {lm.name!r} has {len(lm.tokenizer)}")
