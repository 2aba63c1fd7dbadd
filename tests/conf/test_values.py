"""A value that passes the check is the value that the object holds, for every field of every configuration group."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, get_type_hints

import pytest
from composing import config, for_every
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from pydantic import PydanticUserError, TypeAdapter
from test_configs import OPTIONS, Option, chosen, writable

from romexp.cli.validate_config import build, validate_config, validate_part
from romexp.errors import ConfigError, RomexpError
from romexp.results.identity import digest, fingerprint

VALUES: tuple[Any, ...] = (
    *(None, True, False, "true", "no", "Off", "yes", "on", "text", "", "3", "1e-3", "nan"),
    *(0, 1, 7, -1, 2**70, 0.0, 2.0, 1e1, 2.5, -0.5, 1e300, math.nan, math.inf, -math.inf),
    *([], [1, 2], [3.0, True], ["a"], [[5, 10]], [[5, 10.0]], [[5]], {"a": 1}),
)
Path = tuple[str, ...]


@cache
def plain_part(option: Option) -> Any:
    cfg = writable(chosen(option))
    return OmegaConf.to_container(cfg, resolve=True)[option[0]]  # type: ignore[index, call-overload]


def fields_of(node: Any, path: Path = ()) -> Iterator[tuple[Path, type, str]]:
    """Path, class and name of every field that a part of a configuration sets, at any depth."""
    if isinstance(node, dict):
        cls = get_object(node["_target_"]) if "_target_" in node else None
        for key, value in node.items():
            if dataclasses.is_dataclass(cls) and key != "_target_":
                yield (*path, key), cls, key  # type: ignore[misc]
            yield from fields_of(value, (*path, key))


def every_field() -> dict[tuple[type, str], tuple[Option, Path]]:
    """Each field of each class, where it first stands."""
    found: dict[tuple[type, str], tuple[Option, Path]] = {}
    for option in OPTIONS:
        for path, cls, name in fields_of(plain_part(option)):
            found.setdefault((cls, name), (option, path))
    return found


def at(thing: Any, path: Path) -> Any:
    for key in path:
        thing = thing[key] if isinstance(thing, dict) else getattr(thing, key)
    return thing


def with_value(part: Any, path: Path, value: Any) -> Any:
    changed = copy.deepcopy(part)
    at(changed, path[:-1])[path[-1]] = value
    return changed


def fits(value: Any, hint: Any) -> bool:
    """Whether pydantic, which knows nothing of ours, takes the value as it is."""
    try:
        adapter = TypeAdapter(hint)
    except (PydanticUserError, TypeError):
        return True
    kept = adapter.validate_python(value, strict=True)
    return type(kept) is type(value) or isinstance(value, (int, tuple))


def same(held: Any, checked: Any) -> bool:
    return type(held) is type(checked) and held == checked


def holds_what_was_checked(field: tuple[type, str], where: tuple[Option, Path], values: tuple[Any, ...]) -> int:
    """Try values for one field; the number of those that are taken."""
    option, path = where
    part, hint, taken = plain_part(option), get_type_hints(field[0])[field[1]], 0
    for value in values:
        try:
            checked = validate_part(with_value(part, path, value), where=option[0])
            built = build(checked, where=option[0])
        except RomexpError:
            continue
        held = at(built, path)
        assert same(held, at(checked, path)), f"{value!r}: {held!r} is held, {at(checked, path)!r} was checked"
        assert fits(held, hint), f"{value!r}: {held!r} is no {hint}"
        assert not isinstance(held, float) or math.isfinite(held), held
        taken += 1
    return taken


def test_every_field_holds_what_was_checked() -> None:
    fields = every_field()
    assert len({cls for cls, _ in fields}) > 30
    assert len(fields) > 150
    wrong, taken = [], {}
    for field, where in fields.items():
        try:
            taken[field] = holds_what_was_checked(field, where, VALUES)
        except Exception as error:
            wrong.append(f"{where}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
    simple = [f for f in taken if get_type_hints(f[0])[f[1]] in (bool, int, float)]
    assert [f for f in simple if not 0 < taken[f] < len(VALUES)] == [], "some values are taken, some refused"


def as_hydra_builds(option: Option) -> None:
    part = plain_part(option)
    ours = build(validate_part(part, where=option[0]), where=option[0])
    # Mappings and lists of built parts are to be plain ones, as ours are.
    theirs = instantiate(writable(chosen(option))[option[0]], _convert_="object")
    assert digest(fingerprint(ours)) == digest(fingerprint(theirs))


def test_results_of_ordinary_runs_keep_their_names() -> None:
    """The identity of a run is made of these fingerprints."""
    for_every([option for option in OPTIONS if option != ("covariance", "text")], as_hydra_builds)


def test_an_integer_in_a_field_of_floats_keeps_the_name_too() -> None:
    overrides = ("editor=rome", "editor.clamp_norm_factor=3")
    part: Any = OmegaConf.to_container(config(*overrides).editor, resolve=True)
    assert type(part["clamp_norm_factor"]) is int
    ours = build(validate_part(part, where="editor"), where="editor")
    assert digest(fingerprint(ours)) == digest(fingerprint(instantiate(config(*overrides).editor)))


def checked(*overrides: str) -> dict[str, Any]:
    plain: Any = OmegaConf.to_container(config(*overrides), resolve=True)
    return validate_config(plain)


def test_a_task_gets_the_checked_values_of_the_top_level_and_of_its_parts() -> None:
    values = checked("save_deltas=on", "editor.layer=2.0", "dataset.limit=1e1", "task.batch_size=4.0", "seed=3.0")
    task = build(values["task"], where="task")
    assert (task.save_deltas, task.editor.layer, task.dataset.limit, task.batch_size) == (True, 2, 10, 4)
    assert (values["save_deltas"], values["seed"], values["editor"]["layer"]) == (True, 3, 2)
    assert {type(values["seed"]), type(task.editor.layer), type(task.dataset.limit)} == {int}
    own = build(checked("save_deltas=off", "task.save_deltas=yes")["task"], where="task")
    assert own.save_deltas is True, "the task's own value wins over the top level"
    trainer = build(checked("task=train_minifact", "seed=7.0")["task"], where="task").trainer
    assert (trainer.seed, trainer.world.seed) == (7, 7)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["editor.mom2_adjustment=2"], "editor.mom2_adjustment: expected a valid boolean"),
        (["editor.layer=true"], "editor.layer: expected a valid integer"),
        (["editor.layer=2.5"], "editor.layer: expected a valid integer"),
        (["editor.kl_factor=nan"], "editor.kl_factor: expected a valid number, which is finite"),
        (["editor=ft", "editor.lr=inf"], "editor.lr: expected a valid number, which is finite"),
        (["dataset.case_ids=3"], r"dataset.case_ids: expected a valid list \(\[3\]\)"),
        (["dataset.limit=1e30"], "dataset.limit: expected a valid integer below"),
        (["study=2024"], "study: expected a valid string .write '\"2024\"'."),
        (["task=trace", "prompt=[a,b]", "subject=a"], "^prompt: expected a valid string"),
        (["save_deltas=3"], "^save_deltas: expected a valid boolean"),
        (["editor.context_template_length_params=[[5]]"], "each is a list of which each is|each is a list of 2 values"),
        (["~editor.layer", "+editor.layr=3"], r"editor.layr: no such setting \(did you mean layer\?\)"),
        (["model=hf", "model.path=x", "~model.path"], "model.path must be given"),
        (["editor._target_=no.such.module"], "editor._target_: cannot import 'no.such.module'"),
    ],
)
def test_other_values_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(*overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["editor.v_lr=-1"], "editor.v_lr: expected a number of at least 0, not -1"),
        (["editor.clamp_norm_factor=-0.5"], "editor.clamp_norm_factor: expected a number of at least 0"),
        (["editor.v_num_grad_steps=0"], "editor.v_num_grad_steps: expected a number of at least 1"),
        (["editor.layer_fraction=1.5"], "editor.layer_fraction: expected a number from 0 to 1"),
        (["editor=ft", "editor.lr=-1e-4"], "editor.lr: expected a number of at least 0"),
        (["editor=ft", "editor.num_steps=0"], "editor.num_steps: expected a number of at least 1"),
        (["editor=mend", "editor.lr_scale=-1"], "editor.lr_scale: expected a number of at least 0"),
        (["covariance.sample_size=0"], "covariance.sample_size: expected a number of at least 1"),
        (["evaluator.max_batch_tokens=-5"], "evaluator.max_batch_tokens: expected a number of at least 1"),
    ],
)
def test_numbers_out_of_bounds_are_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(checked(*overrides)["task"], where="task")
