"""Settings of another model: they are found, said at the start, kept, and marked wherever the numbers are shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra.utils import instantiate
from tiny_runs import Command

from romexp.compose import compose_config
from romexp.model_settings import BASE_MODEL, bound_settings, not_tuned_message, settings_not_tuned

NOT_TUNED = "settings not tuned for this model"


def found(editor: str, *overrides: str, model: str = "hf", name: str = "llama-2", layers: int = 48) -> dict[str, Any]:
    """What is said of an editor that is composed as the command line does it."""
    path = ["model.path=x"] if model == "hf" else []
    config = compose_config([f"model={model}", *path, f"editor={editor}", *overrides])
    lm: Any = SimpleNamespace(name=name, n_layers=layers)
    chosen: Any = instantiate(config.editor)
    return settings_not_tuned(chosen, option=editor, model=model, lm=lm, overrides=overrides)


@pytest.mark.parametrize(
    ("editor", "settings"),
    [
        ("ft_l", {"norm_constraint": 5e-4}),
        ("ft", {"layer": 1}),
        ("ft_attn", {"layer": 33, "norm_constraint": 1e-3}),
        ("rome", {"layer": 17, "clamp_norm_factor": 4.0}),
        ("none", {}),
        ("mend", {}),  # A network is of one model, and others are refused.
    ],
)
def test_what_belongs_to_gpt2_xl_in_a_model_without_settings(editor: str, settings: dict[str, Any]) -> None:
    assert found(editor) == settings
    assert {"leading_space", "target_factor"} <= set(found("kn"))


def test_every_pair_with_settings_is_tuned() -> None:
    for editor in ("ft", "ft_l", "ft_attn", "kn", "rome"):
        assert found(editor, model=BASE_MODEL, name=BASE_MODEL) == {}
    assert found("ft_l", model="minifact", name="minifact") == {}
    assert found("ft_l", model="gpt2-medium", name="gpt2-medium") == {}
    assert found("ft", model="gpt2-medium", name="gpt2-medium") == {"layer": 1}, "the control"
    assert bound_settings("ft") == ["layer"], "files of ft_l and ft_attn are not those of ft"


def test_an_editor_whose_settings_are_those_of_another_model() -> None:
    settings = found("ultraedit", model=BASE_MODEL, name=BASE_MODEL)
    assert settings["lr"] == 1e-6
    said = not_tuned_message(settings, option="ultraedit", model=BASE_MODEL, name=BASE_MODEL)
    assert "takes those of Mistral 7B" in said


def test_a_file_in_a_folder_of_the_users(tmp_path: Path) -> None:
    config = compose_config(["model=hf", "model.path=x", "editor=rome"])
    lm: Any = SimpleNamespace(name="mine", n_layers=48)
    chosen: Any = instantiate(config.editor)

    def left(*folders: Path) -> dict[str, Any]:
        return settings_not_tuned(chosen, option="rome", model="mine", lm=lm, folders=folders)

    assert "layer" in left(tmp_path), "the control"
    (tmp_path / "editor_model").mkdir()
    (tmp_path / "editor_model" / "rome_mine.yaml").write_text("layer: 3\n")
    assert left(tmp_path) == {}
    assert "layer" in left()


def test_what_the_user_chose_is_chosen() -> None:
    assert found("ft_l", "editor.norm_constraint=1e-3") == {}
    assert found("ft_l", "editor.norm_constraint=5e-4") == {}, "even the same value"
    assert found("rome", "editor.layer=5") == {"clamp_norm_factor": 4.0}
    assert found("rome", "editor.layer_fraction=0.25", "editor.clamp_norm_factor=4") == {}


def test_a_model_given_by_its_path_may_have_a_known_name() -> None:
    assert found("ft_l", name="gpt2-xl") == {} == found("rome", name="gpt2-xl")
    assert found("rome", name="gpt2-xl", layers=40) == {"layer": 14}, "another depth gives another layer"
    assert found("ft_l", name="gpt2-medium") == {"norm_constraint": 5e-4}, "those of the name are others"
    said = not_tuned_message({"norm_constraint": 5e-4}, option="ft_l", model="hf", name="gpt2-medium")
    assert "for those of gpt2-medium: model=gpt2-medium model.path=…" in said


def test_a_run_warns_and_keeps_it(romexp: Command, tiny: list[str]) -> None:
    arguments = [a for a in tiny if not a.startswith("editor")]
    done = romexp(*arguments, "editor=ft_l", "dataset.limit=1", "output_dir=out")
    assert done.status == 0, done.err
    (said,) = (line for line in done.err.splitlines() if NOT_TUNED in line)
    assert "editor=ft_l has none for tiny and takes those of gpt2-xl (editor.norm_constraint=0.0005)" in said
    assert "FT+L †" in done.out
    assert f"† {NOT_TUNED}: norm_constraint" in done.out
    assert json.loads(Path("out/manifest.json").read_text())["settings_not_tuned"] == {"norm_constraint": 0.0005}
    assert json.loads(Path("out/summary.json").read_text())["settings_not_tuned"] == ["norm_constraint"]
    chosen = romexp(*arguments, "editor=ft_l", "editor.norm_constraint=1e-3", "dataset.limit=1", "output_dir=own")
    assert "†" not in chosen.out
    assert "settings_not_tuned" not in json.loads(Path("own/summary.json").read_text())


def test_a_sweep_marks_its_rows(romexp: Command, tiny: list[str]) -> None:
    arguments = [a for a in tiny if not a.startswith("editor")]
    done = romexp(*arguments, "editor=ft_l,none", "dataset.limit=1", "-m")
    assert "editor=ft_l †" in done.out
    assert "editor=none †" not in done.out
    assert f"† {NOT_TUNED}: norm_constraint" in done.out


def test_the_python_face_tells_names_from_objects() -> None:
    from romexp.api.methods import not_tuned_for

    class Model(SimpleNamespace):
        option = ""

    lm: Any = Model(name="x", n_layers=6)
    assert not_tuned_for(lm, "ft_l") == {"norm_constraint": 0.0005}
    chosen: Any = instantiate(compose_config(["editor=ft_l"]).editor)
    assert not_tuned_for(lm, chosen) == {}, "an object has the settings that the caller gave it"
