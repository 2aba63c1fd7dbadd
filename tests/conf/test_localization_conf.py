"""task=localization composes with each model's own settings of the editors."""

from __future__ import annotations

import pytest
from conftest import ROOT
from hydra.utils import instantiate
from omegaconf import OmegaConf

from romexp.compose import compose_config
from romexp.editors.finetune import FineTune
from romexp.localization.methods import Methods

EDITORS = ("rome", "ft", "ft_l", "memit")
OWN = [
    (file.stem.removeprefix(f"{editor}_"), editor, file)
    for editor in EDITORS
    for file in sorted((ROOT / "conf" / "editor_model").glob(f"{editor}_*.yaml"))
    if (ROOT / "conf" / "model" / f"{file.stem.removeprefix(f'{editor}_')}.yaml").is_file()
]


@pytest.mark.parametrize("model", sorted({model for model, *_ in OWN}))
def test_each_model_has_its_own_settings(model: str) -> None:
    editors = compose_config(["task=localization", f"model={model}"]).task.editors
    compared = 0
    for editor in EDITORS:
        for _, _, file in (own for own in OWN if own[:2] == (model, editor)):
            for name, value in OmegaConf.to_container(OmegaConf.load(file)).items():  # type: ignore[union-attr]
                assert editors[editor][name] == value, f"{editor}.{name}"
                compared += 1
    assert compared  # control


def test_more_editors_can_be_added_and_fine_tuning_is_that_of_the_study() -> None:
    added = ["+editor@task.editors.emmet=emmet", "task.methods=[emmet,ft]"]
    editors = {
        name: instantiate(part) for name, part in compose_config(["task=localization", *added]).task.editors.items()
    }
    methods = Methods(editors=editors, width=3)
    assert methods.at("emmet", "erasure", 4, n_layers=8).layers == (3, 4, 5)  # type: ignore[attr-defined]
    assert isinstance(editors["ft"], FineTune)
    assert editors["ft"].teacher_forcing
