"""Reads second moments from files: our safetensors, plain `.npz`, and the `.npz` of the ROME authors."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, DataError
from romexp.files import file_sha256
from romexp.lm.model import LanguageModel
from romexp.stats.keys import key_module, key_width
from romexp.stats.second_moment import SecondMoment, load_moments
from romexp.unpacked import check_array, check_zip

PLAIN_KEY = "moment"
LAYER_KEY = re.compile(r"layer(\d+)")
AUTHORS_SUM, AUTHORS_COUNT = "mom2.mom2", "mom2.count"
SUFFIXES = (".safetensors", ".npz")


def locate(path: str | Path, *, layer: int, module: str) -> Path:
    """Find the statistics file of one layer.

    Args:
        path: a file; or a path that contains `{layer}` or `{module}`; or a folder with exactly one file whose name
            begins with the module's name, as in `transformer.h.17.mlp.c_proj_float32_mom2_100000.npz` of the authors.
        module: name of the layer's second MLP matrix, such as `transformer.h.17.mlp.c_proj`.

    Raises:
        ConfigError: there is no such file, its name names another layer, or the folder holds none or several.
    """
    found = Path(str(path).replace("{layer}", str(layer)).replace("{module}", module)).expanduser()
    if found.is_file():
        if (named := _layer_in_name(found.name, layer, module)) not in (None, layer):
            raise ConfigError(f"covariance.path: {found.name} says that it is layer {named}; layer {layer} is wanted")
        return found
    if not found.is_dir():
        raise ConfigError(f"covariance.path: no file or folder {found}")
    files = sorted(f for f in found.iterdir() if f.suffix in SUFFIXES and _names_module(f.name, module))
    if len(files) != 1:
        raise ConfigError(
            f"covariance.path: expected one file {module}*.npz or {module}*.safetensors in {found}, "
            f"found {', '.join(f.name for f in files) or 'none'}"
        )
    return files[0]


def _names_module(name: str, module: str) -> bool:
    """True if the file's name is the module's name, alone or followed by `_`: `…h.1.mlp` must not match `…h.1.mlp2`."""
    return name.startswith(module + "_") or Path(name).stem == module


def _layer_in_name(name: str, layer: int, module: str) -> int | None:
    """The layer that a file's name names, if it begins with the name of this module in any layer; else None."""
    before, after = module.split(f".{layer}.", 1)
    match = re.match(re.escape(before) + r"\.(\d+)\." + re.escape(after) + r"[._]", name)
    return int(match[1]) if match else None


def read(path: Path, *, layer: int, width: int | None = None) -> SecondMoment:
    """Read the second moment of `layer` from a file.

    The file is a safetensors file of `save_moments`, or an `.npz` with `moment` (the matrix itself), with `layer3`,
    `layer4`, … (the matrices of several layers), or with `mom2.mom2` and `mom2.count` (the sum and the number of
    tokens, as the authors store them). Pickled arrays are never loaded.

    Args:
        layer: the layer to read. An `.npz` file with one matrix does not name its layer; it is taken to be this one.
        width: the width D that the model needs; None accepts any.

    Raises:
        DataError: the file cannot be read, has no second moment, or holds a matrix of another size.
    """
    if path.suffix == ".safetensors":
        moment = load_moments(path, [layer])[layer]
    elif path.suffix == ".npz":
        moment = _read_npz(path, layer)
    else:
        raise DataError(f"{path}: unknown type of statistics file; expected one of {', '.join(SUFFIXES)}")
    if width is not None and moment.width != width:
        raise DataError(
            f"{path}: a second moment of {moment.width} × {moment.width}, but layer {layer} of the model has "
            f"{width} keys; it was measured on another model"
        )
    return moment


def _read_npz(path: Path, layer: int) -> SecondMoment:
    try:
        _check_sizes(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            matrix, count = _matrix_and_count(file, path, layer)
    except (OSError, ValueError, TypeError, EOFError, zlib.error, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.dtype.kind != "f":
        raise DataError(f"{path}: expected a square matrix of floats, got {matrix.dtype} {matrix.shape}")
    values = torch.from_numpy(np.ascontiguousarray(matrix, dtype=np.float32))
    provenance = {"file": str(path), "sha256": file_sha256(path), "layer": layer}
    return SecondMoment(matrix=values, count=count, provenance=provenance)


def _check_sizes(path: Path) -> None:
    """Refuse a file that would unpack to far more than it can hold, before anything is unpacked.

    Raises:
        DataError: it would.
        BadZipFile, ValueError: it is not an `.npz`.
    """
    check_zip(path)
    with zipfile.ZipFile(path) as file:
        for part in file.infolist():
            if part.filename.endswith(".npy"):
                with file.open(part) as stream:
                    check_array(path, stream, part.file_size, part=part.filename)


def holds_layers(path: Path) -> bool:
    """Whether this `.npz` file holds matrices by layer, as `layer3`.

    Raises:
        DataError: it is not a readable `.npz` file.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            return bool(_layers_in(file.files))
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz file ({error})") from error


def _layers_in(names: Iterable[str]) -> list[int]:
    """The layers whose matrices an `.npz` file holds by name."""
    return sorted(int(match[1]) for name in names if (match := LAYER_KEY.fullmatch(name)))


def _matrix_and_count(file: np.lib.npyio.NpzFile, path: Path, layer: int) -> tuple[np.ndarray, int]:
    names = set(file.files)
    if PLAIN_KEY in names:
        return file[PLAIN_KEY], int(file["count"]) if "count" in names else 0
    if layers := _layers_in(names):
        if layer not in layers:
            raise DataError(f"{path}: no second moment of layer {layer}; it holds those of {layers}")
        counts = [int(file[name]) for name in ("tokens", "count") if name in names]
        return file[f"layer{layer}"], counts[0] if counts else 0
    if not {AUTHORS_SUM, AUTHORS_COUNT} <= names:
        raise DataError(
            f"{path}: expected an array {PLAIN_KEY!r}, arrays by layer (layer{layer}), or {AUTHORS_SUM!r} and "
            f"{AUTHORS_COUNT!r}; "
            f"found {', '.join(sorted(names)) or 'nothing'}"
        )
    count = int(file[AUTHORS_COUNT])
    if count <= 0:
        raise DataError(f"{path}, {AUTHORS_COUNT}: {count}, expected the number of tokens")
    return file[AUTHORS_SUM] / count, count


INSTEAD = (
    "set covariance.path to such a file, covariance=text covariance.corpus.path=<your texts>, or covariance=sampled"
)
"""What to do where a file cannot be downloaded."""

ROOT_URL = "https://rome.baulab.info/data/stats"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Second moments that the authors publish, one `.npz` per layer (164 MB for GPT-2 XL, 1.1 GB for GPT-J).

    They exist for these two models only, measured on 100,000 articles of the English Wikipedia of May 2020 and summed
    in float32.

    Attributes:
        model: the model's folder on their server, `gpt2-xl` or `EleutherAI_gpt-j-6B` (`/` of a hub id becomes `_`).
        fetch: downloads the file of a URL, unless it is already on this machine, and returns its path
            (`romexp.data.download.Fetcher`).
        corpus: `wikipedia`, or `wikitext`, for which no published file is known.
        dtype: type of the sums; part of the file name.
        sample_size: number of articles; part of the file name.
        root_url: address of the folders, on the authors' server or on a mirror.
    """

    model: str
    fetch: Callable[[str], Path]
    corpus: str = "wikipedia"
    dtype: str = "float32"
    sample_size: int = 100_000
    root_url: str = ROOT_URL

    def __post_init__(self) -> None:
        check_bounds(self, "covariance.published", from_1=("sample_size",))

    def file_name(self, module: str) -> str:
        """Path below `root_url`. `module` names the layer's second MLP matrix, as `transformer.h.17.mlp.c_proj`."""
        return published_name(
            model=self.model, module=module, corpus=self.corpus, dtype=self.dtype, sample_size=self.sample_size
        )

    def locate(self, module: str) -> Path:
        """The path of the module's file on this machine, downloaded if necessary.

        Raises:
            DataError: the download failed.
        """
        try:
            return self.fetch(f"{self.root_url.rstrip('/')}/{self.file_name(module)}")
        except DataError as error:
            raise DataError(f"{error}; or {INSTEAD}") from error


def published_name(
    *, model: str, module: str, corpus: str = "wikipedia", dtype: str = "float32", sample_size: int = 100_000
) -> str:
    """The path of a file on the authors' server.

    >>> published_name(model="gpt2-xl", module="transformer.h.17.mlp.c_proj")
    'gpt2-xl/wikipedia_stats/transformer.h.17.mlp.c_proj_float32_mom2_100000.npz'
    """
    return f"{model.replace('/', '_')}/{corpus}_stats/{module}_{dtype}_mom2_{sample_size}.npz"


def read_files(
    lm: LanguageModel, path: str | Path, layers: Sequence[int], *, check_model: bool
) -> dict[int, SecondMoment]:
    """Read the second moments of some layers from what `covariance.path` names.

    Args:
        check_model: refuse a file whose metadata name another model.

    Raises:
        ConfigError: there is no such file, it holds only one of several layers, or it was measured on another model.
        DataError: a file is not a valid statistics file, or does not fit the model.
    """
    files = {layer: locate(path, layer=layer, module=key_module(lm, layer)) for layer in layers}
    one = files[layers[0]]
    if len(files) > 1 and set(files.values()) == {one} and one.suffix == ".npz" and not holds_layers(one):
        raise ConfigError(f"covariance.path: {path} holds one layer, {len(files)} are wanted; put {{layer}} in it")
    moments = {}
    for layer, file in files.items():
        moments[layer] = read(file, layer=layer, width=key_width(lm, layer))
        origin = moments[layer].provenance
        if check_model and origin.get("model_digest") not in (None, lm.digest):
            raise ConfigError(
                f"covariance.path: {file} was measured on {origin.get('model')} (digest {origin['model_digest']}), "
                f"not on {lm.name} (digest {lm.digest}); covariance.check_model=false accepts it"
            )
    return moments
