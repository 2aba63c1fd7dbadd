"""Where the trained network of MEND and KE comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import naive_learned
import pytest
import torch
from edit_cases import REQUESTS
from learned_cases import MEND, SMALL_KE, born_ke, born_mend
from learned_editor_cases import RESOURCES

from romexp.editors.learned.checkpoint import load, save
from romexp.editors.learned.editor import KE, Mend
from romexp.editors.learned.published import PublishedNetworks
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel
from romexp.results.identity import digest, fingerprint


@pytest.fixture(scope="module")
def files(tiny_gpt2: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A network of each kind for the tiny GPT-2, moved away from its birth."""
    folder = tmp_path_factory.mktemp("networks")
    for network in (born_mend(tiny_gpt2), born_ke(tiny_gpt2)):
        naive_learned.shake(network)
        save(network, folder / f"{network.kind}.safetensors")
    return {"mend": folder / "mend.safetensors", "ke": folder / "ke.safetensors"}


@pytest.fixture(params=["mend", "ke"])
def editor(request: pytest.FixtureRequest, files: dict[str, Path]) -> Mend | KE:
    return (Mend if request.param == "mend" else KE)(checkpoint=files[request.param])


class TestSources:
    def test_by_hand_then_shipped_then_published(
        self, tiny_gpt2: LanguageModel, files: dict[str, Path], tmp_path: Path
    ) -> None:
        asked: list[str] = []

        def fetch(url: str) -> Path:
            asked.append(url)
            return files["mend"]

        networks = PublishedNetworks(fetch=fetch, root_url="https://example.org/weights/")
        Mend(published="mend-10tok-gpt2-xl.pt", networks=networks).network(tiny_gpt2)
        assert asked == ["https://example.org/weights/mend-10tok-gpt2-xl.pt"]
        Mend(shipped=files["mend"], published="x.pt", networks=networks).network(tiny_gpt2)
        assert len(asked) == 1
        with pytest.raises(DataError, match=r"no checkpoint .*gone\.safetensors"):
            Mend(checkpoint=tmp_path / "gone.safetensors", shipped=files["mend"]).network(tiny_gpt2)

    def test_what_tells_runs_apart_is_the_networks_content_and_use(
        self, tiny_gpt2: LanguageModel, files: dict[str, Path], tmp_path: Path
    ) -> None:
        network = load(files["mend"], tiny_gpt2)
        moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
        save(network, moved, metadata={"command": "another", "validation": {"step": 3}})
        with torch.no_grad():
            network.get_parameter("edit_lrs")[0] += 1e-6
        save(network, other)
        here = Mend(checkpoint=files["mend"])
        known = digest(fingerprint(here))
        same = (
            Mend(checkpoint=moved),
            Mend(shipped=str(files["mend"]), published="unused.pt"),
            replace(here, rank=5, n_layers=99, n_hidden=2, edit_lr=1.0, name="other label"),
        )
        assert {digest(fingerprint(editor)) for editor in same} == {known}
        different = (
            Mend(checkpoint=other),
            KE(checkpoint=files["ke"]),
            replace(here, lr_scale=0.5),
            replace(here, statistics="training"),
            replace(here, lr_order="named_parameters"),
            Mend(published="mend-10tok-gpt2-xl.pt"),
        )
        assert len({known, *(digest(fingerprint(editor)) for editor in different)}) == 7

    def test_a_published_network_is_its_name_and_never_fetched_for_it(self) -> None:
        def fetch(url: str) -> Path:
            raise AssertionError(url)

        mirrors = [PublishedNetworks(fetch=fetch, root_url=f"https://{host}.org") for host in "ab"]
        one, other = (fingerprint(KE(published="efk-1tok-gpt2-xl.pt", networks=mirror)) for mirror in mirrors)
        assert one == other == {"type": "KE", "network": "efk-1tok-gpt2-xl.pt"}

    @pytest.mark.parametrize("content", [None, b"torn"])
    def test_a_file_that_cannot_be_read_is_told_before_any_run(self, tmp_path: Path, content: bytes | None) -> None:
        path = tmp_path / "gone.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=r"gone\.safetensors"):
            fingerprint(Mend(checkpoint=path))

    def test_a_network_of_another_model_is_loaded_with_a_warning(
        self, tiny_gpt2: LanguageModel, files: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        network = load(files["mend"], tiny_gpt2)
        for digest_, warned in ((tiny_gpt2.digest, False), ("0123456789abcdef", True)):
            caplog.clear()
            save(network, tmp_path / "x.safetensors", metadata={"model": digest_})
            load(tmp_path / "x.safetensors", tiny_gpt2)
            assert ("other weights" in caplog.text) == warned

    @pytest.mark.parametrize("editor", [MEND, SMALL_KE])
    def test_without_any_it_says_what_to_do(self, tiny_gpt2: LanguageModel, editor: Mend | KE) -> None:
        with pytest.raises(ConfigError, match=r"editor\.checkpoint: there is no trained .* for 'tiny-gpt2'; train one"):
            editor(tiny_gpt2, REQUESTS, resources=RESOURCES)

    def test_the_other_kind_is_refused(self, tiny_gpt2: LanguageModel, files: dict[str, Path]) -> None:
        with pytest.raises(DataError, match=r"ke\.safetensors: a ke network, expected mend"):
            Mend(checkpoint=files["ke"]).network(tiny_gpt2)
        with pytest.raises(DataError, match=r"mend\.safetensors: a mend network, expected ke"):
            KE(checkpoint=files["mend"]).network(tiny_gpt2)

    def test_another_model_gets_its_own(
        self, tiny_gpt2: LanguageModel, tiny_factory: Callable[..., LanguageModel], files: dict[str, Path]
    ) -> None:
        editor = Mend(checkpoint=files["mend"])
        editor.network(tiny_gpt2)
        with pytest.raises(DataError, match="tiny-llama"):
            editor.network(tiny_factory("llama"))
