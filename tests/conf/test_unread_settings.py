"""A top-level setting that the task does not read is refused by name; which task reads what stands in conf/task."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import CONF, config, writable
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf, open_dict

from romexp.cli.unread_settings import refuse_unread
from romexp.cli.validate_config import SHARED
from romexp.errors import ConfigError

GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}
READ = {
    "save_deltas": {"edit", "lifelong"},
    "prompt": {"trace", "try"},
    "subject": {"trace", "try"},
    "target": {"try"},
    "table": {"report"},
    "page": {"report"},
    "wandb": {"report"},
    "answers": {"human_eval"},
}
GIVEN = {"prompt": "a", "subject": "a", "target": "a", "table": "4", "answers": "back", "wandb": "true", "page": "off"}
TASKS = sorted(path.stem for path in (CONF / "task").glob("*.yaml"))


def refuse(cfg: DictConfig, *overrides: str, task: str = "edit") -> None:
    refuse_unread(cfg, task=task, overrides=overrides, groups=GROUPS)


def test_every_setting_is_known_here() -> None:
    top = {str(key) for key in OmegaConf.load(CONF / "config.yaml")} - {"defaults", "hydra"}
    assert top == set(SHARED) | set(READ) | {"extras"}, "a new setting of the top level belongs into READ or SHARED"


@pytest.mark.parametrize("task", TASKS)
def test_a_setting_is_refused_by_every_task_but_those_that_read_it(task: str) -> None:
    cfg = config(f"task={task}")
    refuse(cfg, f"task={task}", "seed=3", "study=x", "traceback=true", "output_dir=x", "editor.layer=3", task=task)
    for setting, readers in READ.items():
        override = f"{setting}={GIVEN.get(setting, 'false')}"
        if task in readers:
            refuse(cfg, override, task=task)
            continue
        named = " and ".join(f"task={name}" for name in sorted(readers)) + (" does" if len(readers) == 1 else " do")
        with pytest.raises(ConfigError, match=f"^{setting}: task={task} does not read it .{named}.$"):
            refuse(cfg, override, task=task)


def test_all_of_them_are_named() -> None:
    expected = "prompt: task=edit does not read it .*; subject: task=edit does not read it "
    with pytest.raises(ConfigError, match=expected):
        refuse(config("prompt=a", "subject=a"), "prompt=a", "subject=a")


def test_a_file_of_a_sweep_is_looked_at_too(tmp_path: Path) -> None:
    def swept(text: str) -> DictConfig:
        (tmp_path / "mine.yaml").write_text(f"defaults: [config, _self_]\n{text}")
        with initialize_config_dir(config_dir=str(tmp_path), version_base="1.3"):
            cfg = compose("mine", overrides=[f"hydra.searchpath=[file://{CONF}]"], return_hydra_config=True)
        return writable(cfg)

    refuse(swept("save_deltas: true\nseed: 3\n"))
    refuse(swept("rate: 0.1\neditor: {v_lr: '${rate}'}\n"))  # a name of the sweep's own, which is used
    with pytest.raises(ConfigError, match="page: task=edit does not read it"):
        refuse(swept("page: true\n"))
    with pytest.raises(ConfigError, match="rate: no such setting"):
        refuse(swept("rate: 0.1\n"))


def test_a_group_without_values_is_not_one() -> None:
    """`debug: true` was a setting once; in a file of one's own it would have no effect."""
    cfg = writable(config())
    refuse(cfg)
    with open_dict(cfg):
        cfg.debug = True
    with pytest.raises(ConfigError, match=r"^debug: it is the name of a group and holds no value"):
        refuse(cfg)


def test_a_part_of_the_task_may_read_it() -> None:
    cfg = writable(config("save_deltas=false"))
    with pytest.raises(ConfigError, match="prompt: task=edit does not read it"):
        refuse(cfg, "prompt=a")
    cfg.editor.name = "${prompt}"
    refuse(cfg, "prompt=a")
