"""What conf/ says of MEND and KE (docs/method.md §4.4 to §4.7): the authors' settings and files, and minifact's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT
from edit_cases import REQUESTS, no_moment
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from romexp.editors.base import Resources
from romexp.lm.model import LanguageModel


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(config_dir=str(ROOT / "conf"), version_base="1.3"):
        yield


def editor(name: str, model: str) -> DictConfig:
    return compose("config", overrides=[f"editor={name}", f"model={model}"]).editor


@pytest.mark.parametrize(
    ("name", "model", "file"),
    [
        ("mend", "gpt2-xl", "mend-10tok-gpt2-xl.pt"),
        ("mend_cf", "gpt2-xl", "mend-1tok-counterfact-gpt2-xl.pt"),
        ("mend_zsre", "gpt2-xl", "mend-1tok-zsre-gpt2-xl.pt"),
        ("mend", "gpt-j-6b", "mend-10tok-gpt-j-6b.pt"),
        ("mend_cf", "gpt-j-6b", "mend-10tok-counterfact-gpt-j-6b.pt"),
        ("ke", "gpt2-xl", "efk-1tok-gpt2-xl.pt"),
        ("ke_cf", "gpt2-xl", "efk-1tok-counterfact-gpt2-xl.pt"),
        ("ke_zsre", "gpt2-xl", "efk-1tok-zsre-gpt2-xl.pt"),
    ],
)
def test_the_authors_files(name: str, model: str, file: str) -> None:
    asked: list[str] = []
    built = instantiate(editor(name, model))
    object.__setattr__(built.networks, "fetch", lambda url: asked.append(url) or Path("x"))
    built.networks.locate(built.published)
    assert asked == [f"https://rome.baulab.info/data/weights/{file}"]


def test_the_authors_settings() -> None:
    mend, ke = editor("mend", "gpt2-xl"), editor("ke", "gpt2-xl")
    assert (mend.rank, mend.n_hidden, mend.edit_lr, mend.lr_scale, mend.n_layers) == (1920, 1, 1e-4, 1.0, 3)
    assert (mend.statistics, mend.lr_order) == ("frozen", "config")
    assert (ke.hidden_size, ke.condition_size, ke.max_scale, ke.n_layers) == (512, 768, 1.0, 3)


@pytest.mark.parametrize(
    ("name", "label"),
    [("mend_zsre", "MEND-zsRE"), ("mend_cf", "MEND-CF"), ("ke_zsre", "KE-zsRE"), ("ke_cf", "KE-CF")],
)
def test_labels_are_the_papers(name: str, label: str) -> None:
    assert instantiate(editor(name, "gpt2-xl")).name == label


@pytest.mark.parametrize("name", ["mend", "ke"])
def test_minifact_has_its_own(minifact_lm: LanguageModel, name: str) -> None:
    built = instantiate(editor(name, "minifact"))
    assert built.shipped.name == f"{name}.safetensors"
    if not built.shipped.is_file():
        pytest.skip(f"no shipped network in {built.shipped}")
    network = built.network(minifact_lm)
    assert network.kind == name
    assert {key: network.config["sizes"][key] for key in network.config["sizes"] if hasattr(built, key)} == {
        key: getattr(built, key) for key in network.config["sizes"] if hasattr(built, key)
    }
    for edit in built(minifact_lm, REQUESTS, resources=Resources(second_moment=no_moment)):
        assert edit.delta.norm() > 0
