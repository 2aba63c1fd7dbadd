"""What the tests of this folder stand on: a loop that forgets no failure, and runs that are what Hydra composes."""

from __future__ import annotations

from pathlib import Path

import pytest
from composing import config, for_every, jobs
from omegaconf import OmegaConf
from omegaconf.errors import ReadonlyConfigError


def test_all_that_is_wrong_is_named_and_nothing_else() -> None:
    def look(thing: tuple[str, int]) -> None:
        assert thing[1] != "1", "one"
        if thing[1] == "2":
            with pytest.raises(ValueError, match="two"):
                pass

    with pytest.raises(AssertionError, match="2 of 4 are wrong") as seen:
        for_every([("a", "1"), ("b", "0"), ("c", "2"), ("d", "0")], look)
    assert [line[:3] for line in str(seen.value).splitlines() if line[1:2] == "/"] == ["a/1", "c/2"]
    for_every([("b", "0"), ("d", "0")], look)


def test_nothing_to_look_at_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="nothing to look at"):
        for_every(tmp_path.glob("*.yaml"), print)


def test_a_configuration_is_composed_once_and_nobody_changes_it() -> None:
    assert config("seed=1") is config("seed=1") != config()
    with pytest.raises(ReadonlyConfigError):
        config().seed = 2


def test_varied_runs_are_what_hydra_composes() -> None:
    runs = [
        [f"editor={editor}", f"editor.layer={layer}", f"seed={seed}", "evaluator.generation=off"]
        for editor, layer, seed in (("ft", 3, 0), ("ft", "null", 1))
    ]
    for overrides, cfg in jobs(config, runs):
        assert OmegaConf.to_container(cfg, resolve=True) == OmegaConf.to_container(config(*overrides), resolve=True)
    with pytest.raises(AssertionError, match="layr"):
        list(jobs(config, [["editor.layr=3"]]))
