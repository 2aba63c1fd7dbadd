"""A model that brings Python code of its own is refused, and the code is not run; nobody is asked."""

from __future__ import annotations

import io
import json
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import make_tiny

from romexp.errors import ConfigError
from romexp.lm.model import PretrainedModel

CODE = """
from pathlib import Path
Path({marker!r}).write_text("the code ran")
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
class OwnConfig(GPT2Config):
    model_type = {kind!r}
class OwnModel(GPT2LMHeadModel):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
MAP = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}


def with_code(folder: Path, *, kind: str) -> Path:
    """A whole model in `folder`, whose configuration asks for its code; the marker that the code would leave."""
    lm, marker = make_tiny("gpt2"), folder / "marker"
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": kind, "auto_map": MAP}))
    (folder / "own.py").write_text(CODE.format(marker=str(marker), kind=kind))
    return marker


@pytest.fixture(autouse=True)
def _yes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who is asked says yes, as a shell script may."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def load(folder: Path) -> None:
    PretrainedModel(path=str(folder), device="cpu").load()


def test_a_model_that_needs_its_own_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = with_code(tmp_path, kind="own_kind")
    with pytest.raises(ConfigError, match="needs Python code of its own") as refused:
        load(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not marker.exists()
    assert "[y/N]" not in capsys.readouterr().out


def test_a_tokenizers_own_code_is_not_run(tmp_path: Path) -> None:
    marker = with_code(tmp_path, kind="gpt2")
    file = tmp_path / "tokenizer_config.json"
    own = {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    file.write_text(json.dumps(json.loads(file.read_text()) | own))
    (tmp_path / "config.json").write_text(
        json.dumps(json.loads((tmp_path / "config.json").read_text()) | {"tokenizer_class": "OwnTokenizer"})
    )
    with suppress(ConfigError):  # if transformers has no class in its place
        load(tmp_path)
    assert not marker.exists()


def test_a_known_kind_is_loaded_without_the_code_it_brings(tmp_path: Path) -> None:
    """A control: many folders on the hub still hold code that transformers has taken over."""
    marker = with_code(tmp_path, kind="gpt2")
    load(tmp_path)
    assert not marker.exists()


def test_the_code_would_leave_a_marker(tmp_path: Path) -> None:
    """A control: transformers runs the code if it may."""
    from transformers import AutoConfig

    marker = with_code(tmp_path, kind="own_kind")
    AutoConfig.from_pretrained(str(tmp_path), trust_remote_code=True)
    assert marker.exists()
