"""Networks come back from disk as they were, from our files and from those of the authors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import published_layout
import pytest
import torch
from learned_cases import born_ke, born_mend, dense, distance, factors_of
from naive_learned import shake
from safetensors.torch import save_file

from romexp.editors.learned.base import EditNetwork
from romexp.editors.learned.checkpoint import build, load, read, save
from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork
from romexp.errors import DataError
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import CHECKSUMS

BORN: dict[str, Callable[[LanguageModel], EditNetwork]] = {"mend": born_mend, "ke": born_ke}


@pytest.fixture(params=list(BORN))
def network(request: pytest.FixtureRequest, tiny_gpt2: LanguageModel) -> EditNetwork:
    network = BORN[request.param](tiny_gpt2)
    shake(network)
    return network


def assert_same(lm: LanguageModel, one: EditNetwork, other: EditNetwork) -> None:
    assert type(one) is type(other)
    assert one.shapes == other.shapes
    factors = factors_of(lm, one.edited)
    for a, b in zip(one(factors), other(factors), strict=True):
        assert distance(a, dense(b)) < 1e-5


class TestOurs:
    def test_a_round_trip_changes_nothing(self, tiny_gpt2: LanguageModel, network: EditNetwork, tmp_path: Path) -> None:
        path = tmp_path / "sub" / "network.safetensors"
        save(network, path, metadata={"steps": 12, "loss": 0.5})
        again = load(path, tiny_gpt2)
        assert not again.training
        assert again.config == network.config
        state = again.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert_same(tiny_gpt2, network, again)
        assert read(path)[0] == {"config": network.config, "training": {"steps": 12, "loss": 0.5}}
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    def test_a_file_is_the_same_twice(self, network: EditNetwork, tmp_path: Path) -> None:
        for name in ("a", "b"):
            save(network, tmp_path / name)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    def test_another_models_network_is_refused(
        self, tiny_factory: Callable[..., LanguageModel], network: EditNetwork, tmp_path: Path
    ) -> None:
        path = tmp_path / "network.safetensors"
        save(network, path)
        with pytest.raises(DataError, match=r"made for a model with transformer\.h\.2.*tiny-llama"):
            load(path, tiny_factory("llama"))

    def test_another_width_is_refused(
        self, tiny_gpt2: LanguageModel, minifact_lm: LanguageModel, network: EditNetwork, tmp_path: Path
    ) -> None:
        path = tmp_path / "network.safetensors"
        save(network, path)
        with pytest.raises(DataError, match=r"c_proj\.weight of \(64, 32\) \(in × out\), but in 'minifact' it is"):
            load(path, minifact_lm)

    def test_a_file_that_is_none_is_named(self, tiny_gpt2: LanguageModel, network: EditNetwork, tmp_path: Path) -> None:
        path = tmp_path / "network.safetensors"
        with pytest.raises(DataError, match="no checkpoint"):
            load(path, tiny_gpt2)
        save(network, path)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DataError, match=r"network\.safetensors: not a safetensors file"):
            load(path, tiny_gpt2)
        save_file({"x": torch.zeros(1)}, path)
        with pytest.raises(DataError, match="of no edit network"):
            read(path)

    def test_weights_that_do_not_fit_the_configuration_are_refused(
        self, tiny_gpt2: LanguageModel, network: EditNetwork, tmp_path: Path
    ) -> None:
        from safetensors import safe_open

        path = tmp_path / "network.safetensors"
        save(network, path)
        with safe_open(str(path), framework="pt") as file:
            metadata = {key: value for key, value in file.metadata().items() if key != CHECKSUMS}
        save_file({"edit_lrs": torch.zeros(9)}, path, metadata=metadata)
        with pytest.raises(DataError, match=r"network\.safetensors: Error.* in loading state_dict"):
            load(path, tiny_gpt2)

    @pytest.mark.parametrize(
        "config",
        [{}, {"kind": "x", "parameters": {}, "sizes": {}}, {"kind": "mend", "parameters": {}, "sizes": {"size": 1}}],
    )
    def test_a_configuration_of_nothing_is_refused(self, config: dict[str, object]) -> None:
        with pytest.raises(DataError, match="not the configuration of an edit network"):
            build(config)


class TestTheAuthors:
    @pytest.mark.parametrize("prefix", ["gtn", "mend"])
    @pytest.mark.parametrize("family", ["gpt2", "gptj"])
    def test_mend(self, tiny_factory: Callable[..., LanguageModel], tmp_path: Path, family: str, prefix: str) -> None:
        """Step sizes follow their order of matrices: GPT-2's second MLP matrix first, GPT-J's first one first."""
        lm = tiny_factory(family)
        network = born_mend(lm)
        shake(network)
        state = published_layout.mend_state(network, prefix=prefix)
        again = load(published_layout.write(tmp_path / "mend-1tok.pt", state, lm.model.config), lm)
        assert isinstance(again, MendNetwork)
        assert (again.rank, again.n_hidden) == (8, 1)
        assert_same(lm, network, again)

    def test_ke(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        network = born_ke(tiny_gpt2)
        shake(network)
        state = published_layout.ke_state(network)
        # Their model has one token more, [PAD].
        weight = state["editor.condition.embedding.weight"]
        state["editor.condition.embedding.weight"] = torch.cat([weight, weight.mean(dim=0, keepdim=True)])
        again = load(published_layout.write(tmp_path / "efk-1tok.pt", state, tiny_gpt2.model.config), tiny_gpt2)
        assert isinstance(again, KeNetwork)
        assert (again.hidden_size, again.condition_size, again.max_scale) == (6, 5, 1.0)
        assert again.vocabulary == network.vocabulary + 1
        assert_same(tiny_gpt2, network, again)

    @pytest.mark.parametrize("kind", ["mend", "ke"])
    def test_another_width_is_refused(
        self, tiny_gpt2: LanguageModel, minifact_lm: LanguageModel, tmp_path: Path, kind: str
    ) -> None:
        network = BORN[kind](tiny_gpt2)
        state = (
            published_layout.mend_state(network)
            if isinstance(network, MendNetwork)
            else published_layout.ke_state(network)  # type: ignore[arg-type]
        )
        path = published_layout.write(tmp_path / "x.pt", state, tiny_gpt2.model.config)
        with pytest.raises(DataError, match=r"x\.pt: .*made for .*minifact"):
            load(path, minifact_lm)

    def test_a_model_with_other_names_is_refused(
        self, tiny_gpt2: LanguageModel, tiny_factory: Callable[..., LanguageModel], tmp_path: Path
    ) -> None:
        state = published_layout.ke_state(born_ke(tiny_gpt2))
        path = published_layout.write(tmp_path / "x.pt", state, tiny_gpt2.model.config)
        with pytest.raises(DataError, match="made for a model with transformer_h_2_mlp_c_proj_weight"):
            load(path, tiny_factory("llama"))

    def test_a_tensor_that_is_missing_is_named(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        state = published_layout.mend_state(born_mend(tiny_gpt2))
        del state["gtn.(64, 32).mlp.layers.1.bias"]
        path = published_layout.write(tmp_path / "x.pt", state, tiny_gpt2.model.config)
        with pytest.raises(DataError, match=r"x\.pt: .*64x32\.layers\.1\.bias"):
            load(path, tiny_gpt2)

    def test_torn_and_foreign_files_are_named(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        path = tmp_path / "x.pt"
        state = published_layout.mend_state(born_mend(tiny_gpt2))
        published_layout.write(path, state, tiny_gpt2.model.config)
        whole = path.read_bytes()
        for torn in (whole[:2000], b"", b"no weights at all", b"\x0e\x00\x00\x00" + b"{}" * 50):
            path.write_bytes(torn)
            with pytest.raises(DataError, match=r"x\.pt: torch cannot read it"):
                load(path, tiny_gpt2)
        for content, message in (([1], "expected a dictionary"), ({"model": {"a": torch.ones(1)}}, "neither a MEND")):
            torch.save(content, path)
            with pytest.raises(DataError, match=message):
                load(path, tiny_gpt2)

    def test_nothing_in_a_file_is_run(self, tiny_gpt2: LanguageModel, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
                return Path.touch, (tmp_path / "sprung",)

        path = tmp_path / "x.pt"
        torch.save({"model": Trap()}, path)
        with pytest.raises(DataError, match="torch cannot read it as plain weights"):
            load(path, tiny_gpt2)
        assert not (tmp_path / "sprung").exists()
        act, arguments = Trap().__reduce__()
        act(*arguments)
        assert (tmp_path / "sprung").exists()
