from pathlib import Path

import numpy as np
import pytest
import torch

from romexp.errors import ConfigError, DataError
from romexp.stats.readers import Published, locate, published_name, read
from romexp.stats.second_moment import SecondMoment

MODULE = "transformer.h.1.mlp.c_proj"
MATRIX = np.diag(np.arange(1, 5, dtype=np.float32)) + 0.5


def authors_npz(path: Path, *, count: int = 250) -> Path:
    """As `save_cached_state` of the reference writes it: 0-d arrays beside the sum, the constructor a string."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {
        "mom2.constructor": "util.runningstats.SecondMoment()",
        "mom2.count": count,
        "mom2.mom2": MATRIX * count,
        "sample_size": 100000,
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_authors_file_is_a_sum_to_be_divided(tmp_path: Path) -> None:
    path = authors_npz(tmp_path / "a.npz")
    moment = read(path, layer=1, width=4)
    assert torch.allclose(moment.matrix, torch.from_numpy(MATRIX))
    assert moment.matrix.dtype == torch.float32
    assert moment.count == 250
    assert moment.provenance["file"] == str(path)
    assert len(moment.provenance["sha256"]) == 64


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_plain_file(tmp_path: Path, dtype: type) -> None:
    np.savez_compressed(tmp_path / "p.npz", moment=MATRIX.astype(dtype))
    moment = read(tmp_path / "p.npz", layer=1)
    assert torch.equal(moment.matrix, torch.from_numpy(MATRIX))
    assert moment.count == 0


def test_our_file(tmp_path: Path) -> None:
    SecondMoment(matrix=torch.from_numpy(MATRIX), count=9, provenance={"layer": 1}).save(tmp_path / "o.safetensors")
    assert torch.equal(read(tmp_path / "o.safetensors", layer=1, width=4).matrix, torch.from_numpy(MATRIX))
    with pytest.raises(DataError, match=r"no second moment of layer \[2\]"):
        read(tmp_path / "o.safetensors", layer=2)


def test_golden_file(shared: Path) -> None:
    moment = read(shared / "golden" / "covariance_layer3.npz", layer=3, width=512)
    assert torch.equal(moment.matrix, moment.matrix.T)
    with pytest.raises(DataError, match="512 × 512, but layer 3 of the model has 64 keys"):
        read(shared / "golden" / "covariance_layer3.npz", layer=3, width=64)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"cov": MATRIX}, r"expected an array 'moment', arrays by layer \(layer0\), or 'mom2.mom2' and .*; found cov"),
        ({"layer2": MATRIX, "layer1": MATRIX}, r"no second moment of layer 0; it holds those of \[1, 2\]"),
        ({"mom2.mom2": MATRIX}, "expected an array 'moment'"),
        ({"moment": MATRIX[:3]}, r"expected a square matrix of floats, got float32 \(3, 4\)"),
        ({"moment": MATRIX.astype(int)}, "expected a square matrix of floats, got int64"),
        ({"mom2.mom2": MATRIX, "mom2.count": 0}, "expected the number of tokens"),
        ({"moment": np.array([None, {}])}, "not a readable .npz"),  # pickled: never loaded
    ],
)
def test_other_contents_are_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path / "x.npz", layer=0)
    assert "x.npz" in str(caught.value)


def test_torn_or_strange_files_are_refused(tmp_path: Path) -> None:
    whole = authors_npz(tmp_path / "w.npz").read_bytes()
    np.save(tmp_path / "array.npy", MATRIX)
    for content in (b"", b"hello", whole[: len(whole) // 2], (tmp_path / "array.npy").read_bytes()):
        (tmp_path / "t.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"t\.npz: not a readable \.npz"):
            read(tmp_path / "t.npz", layer=0)
    (tmp_path / "t.pt").write_bytes(b"")
    with pytest.raises(DataError, match="unknown type"):
        read(tmp_path / "t.pt", layer=0)


def test_locate(tmp_path: Path) -> None:
    one = authors_npz(tmp_path / f"{MODULE}_float32_mom2_100000.npz")
    other = authors_npz(tmp_path / "transformer.h.11.mlp.c_proj_float32_mom2_100000.npz")
    assert locate(tmp_path, layer=1, module=MODULE) == one
    assert locate(tmp_path, layer=11, module=MODULE.replace(".1.", ".11.")) == other
    assert locate(one, layer=1, module=MODULE) == one
    assert locate(f"{tmp_path}/{{module}}_float32_mom2_100000.npz", layer=1, module=MODULE) == one
    assert locate(f"{tmp_path}/transformer.h.{{layer}}.mlp.c_proj_float32_mom2_100000.npz", layer=11, module="m.11.x")
    with pytest.raises(ConfigError, match="says that it is layer 11; layer 1 is wanted"):
        locate(other, layer=1, module=MODULE)
    with pytest.raises(ConfigError, match="found none"):
        locate(tmp_path, layer=2, module=MODULE.replace(".1.", ".2."))
    with pytest.raises(ConfigError, match="no file or folder"):
        locate(tmp_path / "nothing_{layer}.npz", layer=2, module=MODULE)
    authors_npz(tmp_path / f"{MODULE}_float64_mom2_100000.npz")
    with pytest.raises(ConfigError, match="expected one file"):
        locate(tmp_path, layer=1, module=MODULE)


def test_published_names_are_the_authors(tmp_path: Path) -> None:
    name = "gpt2-xl/wikipedia_stats/transformer.h.17.mlp.c_proj_float32_mom2_100000.npz"
    assert published_name(model="gpt2-xl", module="transformer.h.17.mlp.c_proj") == name
    asked: list[str] = []

    def fetch(url: str) -> Path:
        asked.append(url)
        return tmp_path

    assert Published(model="gpt2-xl", fetch=fetch).locate("transformer.h.17.mlp.c_proj") == tmp_path
    Published(model="EleutherAI/gpt-j-6B", fetch=fetch).locate("transformer.h.5.mlp.fc_out")
    root = "https://rome.baulab.info/data/stats"
    gptj = "EleutherAI_gpt-j-6B/wikipedia_stats/transformer.h.5.mlp.fc_out_float32_mom2_100000.npz"
    assert asked == [f"{root}/{name}", f"{root}/{gptj}"]
