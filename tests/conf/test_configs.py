"""Every YAML file in conf/ composes, builds what it names, and says what its values mean."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from composing import CONF, config, for_every, jobs, writable
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf

from romexp.minifact.train import TrainMinifact

Option = tuple[str, str]

GLOBAL = ("experiment", "hparams_search", "debug")
"""Groups whose files set values anywhere."""

OPTIONS = [
    (path.parent.name, path.stem)
    for path in sorted(CONF.glob("*/*.yaml"))
    if path.parent.name not in ("hydra", "editor_model", "corpus", *GLOBAL)
]
NEEDED = {
    ("model", "hf"): ["model.path=x"],
    ("covariance", "text"): ["covariance.corpus.path=x"],
}
"""What the user must say besides the option."""

TOGETHER = (
    (("model", "hf"), "editor", "dataset", "covariance", "tracer", "tracker"),
    ("task", "model", "evaluator", "references"),
)
"""Groups whose options are composed side by side, to compose less often: the first of each, the second of each, …

What an option chooses in other groups must not be chosen for it, so a data set does not stand beside evaluators and
references, nor a model beside covariances and tracers, nor a task beside data sets. An option in place of a group is
in every row.
"""

LEFT_OUT = {"remote", "idf_remote", "vocabulary_remote"}
"""Fields that have no line in YAML: published files, by URL and digest, that stand in the code."""


def rows() -> Iterator[list[Option]]:
    for groups in TOGETHER:
        fixed = [group for group in groups if isinstance(group, tuple)]
        columns = [[o for o in OPTIONS if o[0] == group] for group in groups if isinstance(group, str)]
        for row in itertools.zip_longest(*columns):
            yield [*fixed, *(option for option in row if option)]


ROW_OF = {option: row for row in rows() for option in row}


def overrides(options: list[Option]) -> list[str]:
    needed = [override for option in options for override in NEEDED.get(option, [])]
    return [*(f"{group}={name}" for group, name in options), *needed]


def chosen(option: Option, *, conf: Path = CONF) -> DictConfig:
    """A configuration with the option: that of its row, or if the row does not compose that of the option alone."""
    try:
        return config(*overrides(ROW_OF[option]), conf=conf)
    except Exception:
        return config(*overrides([option]), conf=conf)


def targets(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping with a `_target_`, at any depth."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)


def builds_what_it_names(option: Option, *, conf: Path = CONF) -> None:
    node = writable(chosen(option, conf=conf))[option[0]]  # Building a task changes the configuration it is in.
    built = instantiate(node)
    assert type(built) is get_class(node["_target_"])
    assert dataclasses.is_dataclass(built)
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.name = "other"


def has_the_fields_of_its_classes(option: Option, *, conf: Path = CONF) -> None:
    for node in targets(OmegaConf.to_container(chosen(option, conf=conf)[option[0]])):
        target = node["_target_"]
        if target.rsplit(".", 1)[1][0].islower():  # This is a function that gives a path.
            continue
        fields = {f.name for f in dataclasses.fields(get_class(target)) if f.init} - LEFT_OUT
        assert set(node) - {"_target_"} == fields, target


def test_every_option_builds_what_it_names() -> None:
    assert set(ROW_OF) == set(OPTIONS), "no group is left out"
    for_every(OPTIONS, builds_what_it_names)


def test_yaml_and_class_have_the_same_fields() -> None:
    for_every(OPTIONS, has_the_fields_of_its_classes)


def test_the_tests_see_wrong_options(tmp_path: Path) -> None:
    """A control: a misspelt key, a class that is not frozen, a line that is missing, a file that is no YAML."""
    conf = Path(shutil.copytree(CONF, tmp_path / "conf"))
    for (group, name), pattern, text in (
        (("editor", "ft"), "(?m)^layer:", "layr:"),
        (("tracer", "causal"), "(?s).*", "# No settings.\n_target_: threading.Event\n"),
        (("dataset", "counterfact"), "(?m)^limit: .*", ""),
        (("covariance", "minifact"), "$", "\n{"),
    ):
        path = conf / group / f"{name}.yaml"
        written = path.read_text()
        path.write_text(re.sub(pattern, text, written, count=1))
        assert path.read_text() != written
    good: list[Option] = [("editor", "rome"), ("dataset", "known")]
    unbuilt: list[Option] = [("editor", "ft"), ("tracer", "causal"), ("covariance", "minifact")]
    unequal: list[Option] = [("editor", "ft"), ("dataset", "counterfact"), ("covariance", "minifact")]
    for look, bad in ((builds_what_it_names, unbuilt), (has_the_fields_of_its_classes, unequal)):
        with pytest.raises(AssertionError) as seen:
            for_every([*good, *bad], lambda option, look=look: look(option, conf=conf))
        named = re.findall(r"(?m)^(\w+)/(\w+): ", str(seen.value))
        assert named == bad


def pair_of(path: Path) -> tuple[str, str]:
    """Editor and model that a file in conf/editor_model is for."""
    pairs = {f"{editor}_{model}": (editor, model) for editor in names("editor") for model in names("model")}
    return pairs[path.stem]


def names(group: str) -> list[str]:
    return [path.stem for path in sorted((CONF / group).glob("*.yaml"))]


def holds(written: DictConfig, editor: DictConfig) -> bool:
    return all(editor[key] == value for key, value in written.items())


def applies_to_its_pair_alone(path: Path) -> None:
    editor, model = pair_of(path)
    written = OmegaConf.load(path)
    assert isinstance(written, DictConfig)
    assert written
    cfg = config(f"editor={editor}", f"model={model}")
    assert holds(written, cfg.editor)
    instantiate(cfg.editor)
    assert not holds(written, chosen(("editor", editor)).editor), "it says what holds for every model"


def test_overrides_of_a_pair_apply_to_that_pair_alone() -> None:
    assert chosen(("editor", "rome")).model.path == "x", "rows of editors are about a model that no file is for"
    for_every(sorted(CONF.glob("editor_model/*.yaml")), applies_to_its_pair_alone)


def test_the_test_sees_overrides_of_no_pair_and_without_effect(tmp_path: Path) -> None:
    """A control. The true values of the pair pass, under the same name."""
    texts = {
        "rome_gpt5": "layer: 3",
        "rome_gpt2-xl": f"layer: {config('editor=rome').editor.layer}",
        "ft_l_gpt-j-6b": "",
    }
    for stem, text in texts.items():
        (tmp_path / f"{stem}.yaml").write_text(text)
    general = chosen(("editor", "ft")).editor.name
    (tmp_path / "ft_gpt-j-6b.yaml").write_text(f"name: {general}")
    shutil.copy(CONF / "editor_model" / "rome_gpt2-large.yaml", tmp_path)
    with pytest.raises(AssertionError, match="4 of 5 are wrong") as seen:
        for_every(sorted(tmp_path.glob("*.yaml")), applies_to_its_pair_alone)
    assert "it says what holds for every model" in str(seen.value)
    assert "rome_gpt2-large" not in str(seen.value)


def test_the_command_line_wins_over_the_pairs_override() -> None:
    assert config("editor=rome", "model=gpt2-medium").editor.clamp_norm_factor == 3
    cfg = config("editor=rome", "model=gpt2-medium", "editor.clamp_norm_factor=2.5")
    assert (cfg.editor.clamp_norm_factor, cfg.editor.layer) == (2.5, 8)


def test_the_papers_hyper_parameters() -> None:
    """docs/method.md §3.1 and §4.1."""
    rome = {m: config("editor=rome", f"model={m}").editor for m in ("gpt2-medium", "gpt2-large", "gpt2-xl", "gpt-j-6b")}
    assert [rome[m].layer for m in rome] == [8, 12, 17, 5]
    assert [rome[m].clamp_norm_factor for m in rome] == [3, 4, 4, 4]
    bounds = {m: config("editor=ft_l", f"model={m}").editor for m in rome}
    assert [bounds[m].norm_constraint for m in bounds] == [2e-3, 1e-3, 5e-4, 5e-5]
    assert {bounds[m].layer for m in bounds} == {0}
    assert [config("editor=ft", f"model={m}").editor.layer for m in ("gpt2-xl", "gpt-j-6b")] == [1, 21]


def test_a_data_set_chooses_how_it_is_measured() -> None:
    zsre = chosen(("dataset", "zsre"))
    assert "Zsre" in zsre.evaluator["_target_"]
    assert zsre.references["_target_"].endswith("NoReferences")
    assert "CounterFact" in chosen(("dataset", "counterfact")).evaluator["_target_"]
    assert "CounterFact" in config("dataset=zsre", "evaluator=counterfact").evaluator["_target_"]


def test_a_model_chooses_its_second_moments() -> None:
    assert chosen(("model", "minifact")).covariance.corpus.unit == "line"
    assert chosen(("model", "gpt2-xl")).covariance.corpus.path == "wikimedia/wikipedia"
    assert config("model=minifact", "covariance=wikitext").covariance.corpus.path == "Salesforce/wikitext"


def test_generation_can_be_switched_off_in_any_spelling() -> None:
    runs = [[f"evaluator.generation={off}"] for off in ("off", "false", "False")]
    assert [run for run, cfg in jobs(config, runs) if instantiate(cfg.evaluator).generates] == []
    assert instantiate(config().evaluator).generates


def explains_its_values(path: Path) -> None:
    """A key with a value has a comment above it or behind it; a file that amends another leaves that to the other."""
    text = path.read_text()
    lines = text.splitlines()
    assert lines[0].startswith("# "), "it does not open with what it is"
    amends = "  - _self_" in lines and "  - /" not in text and path.name != "config.yaml"
    if amends or path.parent.name in ("editor_model", *GLOBAL) or "hydra" in path.parts:
        return
    bare = []
    for above, line in itertools.pairwise(lines):
        key = re.match(r"\s*(\w+): \S", line)
        explained = above.lstrip().startswith("#") or " # " in line or line.endswith("}")
        if key and key[1] not in ("_target_", "defaults") and not explained:
            bare.append(line.strip())
    assert bare == []


def test_every_value_is_explained_where_it_is_defined() -> None:
    for_every(sorted(CONF.rglob("*.yaml")), explains_its_values)


def test_the_test_sees_values_that_nobody_explains(tmp_path: Path) -> None:
    """A control: one comment too few, at the top and inside. With all of them the file passes."""
    good = "# A thing.\n_target_: a.B\n# Its layer.\nlayer: 3\nname: x # In tables.\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "bad.yaml").write_text(good.replace("# Its layer.\n", ""))
    (tmp_path / "headless.yaml").write_text(good.partition("\n")[2])
    with pytest.raises(AssertionError, match="2 of 3 are wrong") as seen:
        for_every(sorted(tmp_path.glob("*.yaml")), explains_its_values)
    assert "layer: 3" in str(seen.value)
    assert "headless.yaml: AssertionError: it does not open with what it is" in str(seen.value)


def test_training_is_configured_as_the_shipped_model_was_made() -> None:
    runs = [["task=train_minifact", f"seed={seed}"] for seed in (0, 1)]
    made = [instantiate(cfg.task.trainer) == TrainMinifact() for _, cfg in jobs(config, runs)]
    assert config().seed == 0
    assert made == [True, False]
