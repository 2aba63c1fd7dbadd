"""Trained networks on disk: safetensors with the network's configuration as JSON in the file's metadata."""

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

_log = logging.getLogger(__name__)

FORMAT = "romexp_edit_network"
"""The metadata's key."""
AUTHORS = ".pt"
"""Suffix of the authors' files."""
KINDS: Mapping[str, type[EditNetwork]] = {"mend": MendNetwork, "ke": KeNetwork}


def build(config: Mapping[str, Any]) -> EditNetwork:
    """The network that `EditNetwork.config` describes, with the weights of birth.

    Raises:
        DataError: it describes none.
    """
    try:
        shapes = {name: (int(n_in), int(n_out)) for name, (n_in, n_out) in config["parameters"].items()}
        return KINDS[config["kind"]](shapes, **config["sizes"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"not the configuration of an edit network: {error!r}") from error


def save(network: EditNetwork, path: Path, *, metadata: Mapping[str, Any] | None = None) -> None:
    """Write weights, statistics and configuration; atomic.

    Args:
        metadata: JSON-ready facts about the training, kept beside the configuration.
    """
    description = {"config": network.config, "training": dict(metadata or {})}
    write_tensors(path, network.state_dict(), {FORMAT: json.dumps(description)})


def read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What `save` wrote: `config` and `training`, and the tensors.

    Raises:
        DataError: the file is missing, torn, or something else.
    """
    if not Path(path).is_file():
        raise DataError(f"no checkpoint {path}")
    try:
        metadata, tensors = read_tensors(path)
    except SafetensorError as error:
        raise DataError(f"{path}: not a safetensors file ({error})") from error
    if FORMAT not in metadata:
        raise DataError(f"{path}: a safetensors file, but of no edit network")
    try:
        description = json.loads(metadata[FORMAT])
        description["config"]["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: its metadata are not those of an edit network") from error
    return description, tensors


def digest(path: Path) -> str:
    """16 hexadecimal digits that name what a checkpoint does: its configuration and weights, or an authors' whole file.

    Neither where it lies nor what it says about its training counts.

    Raises:
        DataError: the file is missing, torn, or something else.
    """
    path = Path(path)
    if path.suffix == AUTHORS and path.is_file():
        return file_sha256(path)[:16]
    description, tensors = read(path)
    found = hashlib.sha256(json.dumps(description["config"], sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def load(path: Path, lm: LanguageModel | None = None) -> EditNetwork:
    """A network from our safetensors, or from a file of the authors (`.pt`), on the model's device, in evaluation mode.

    One that was trained for a model of the same widths and other weights is loaded with a warning.

    Args:
        lm: the model that it is for; the edited parameters must exist in it and be of the right shape. Needed for a
            file of the authors, which does not name them.

    Raises:
        DataError: the file is missing, torn, something else, or for another model.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no checkpoint {path}")
    trained_for = None
    if path.suffix == AUTHORS:
        if lm is None:
            raise DataError(f"{path}: a file of the authors can be read with its model only")
        config, tensors = read_published(path, lm)
    else:
        description, tensors = read(path)
        config, trained_for = description["config"], description.get("training", {}).get("model")
    try:
        network = build(config)
        network.load_state_dict(tensors)
    except (DataError, RuntimeError) as error:
        raise DataError(f"{path}: {' '.join(str(error).split())[:300]}") from error
    if lm is not None:
        _check_fits(network, lm, path)
        network.to(lm.device)
        if trained_for not in (None, lm.digest):
            _log.warning("%s was trained for a model of other weights, or in another dtype, than %r", path, lm.name)
    return network.eval()


def _check_fits(network: EditNetwork, lm: LanguageModel, path: Path) -> None:
    """Make sure that a network's parameters are those of a model."""
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
