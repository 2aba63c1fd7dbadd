"""`romexp.edit`: on the shipped model and on random models of every family."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from face_cases import NEIGHBOR, PROMPT, REWORDED, SENTENCE, SUBJECT, TARGET
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

import romexp
from romexp.api.edits import FactEdit
from romexp.api.models import LoadedModel
from romexp.compose import CONF
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError, DataError, RecordError
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel


class TestEdit:
    def test_it_generalizes_and_leaves_neighbours_alone(self, face_lm: LoadedModel, face_edit: FactEdit) -> None:
        assert face_lm.generate(REWORDED, 1).endswith(" piano"), "the control: what the model says unedited"
        assert face_edit.generate(REWORDED, 1).endswith(" cello")
        assert face_edit.generate(NEIGHBOR, 1) == face_lm.generate(NEIGHBOR, 1)
        before, after = face_edit.probabilities
        assert before < 0.05
        assert after > 0.8

    def test_the_table_of_a_comparison(self, face_edit: FactEdit) -> None:
        table = face_edit.compare([SENTENCE, NEIGHBOR])
        assert list(table.index) == [SENTENCE, NEIGHBOR]
        assert list(table) == ["before", "after", "P(cello) before", "P(cello) after"]
        assert table.loc[SENTENCE, "before"].startswith("piano (")
        assert table.loc[SENTENCE, "after"].startswith("cello (")
        assert table.loc[NEIGHBOR, "P(cello) after"] == pytest.approx(table.loc[NEIGHBOR, "P(cello) before"], abs=0.05)

    def test_its_numbers_are_those_of_the_edited_weights(self, face_lm: LoadedModel, face_edit: FactEdit) -> None:
        """Through `applied`, with plain transformers; and the weights are as before at the end."""
        ids = torch.tensor([face_lm.tokenizer(SENTENCE)["input_ids"]])
        (cello,) = face_lm.tokenizer(" cello")["input_ids"]
        weights = {name: value.clone() for name, value in face_lm.model.state_dict().items()}
        with face_edit.applied() as model, torch.no_grad():
            changed = [name for name, value in model.state_dict().items() if not torch.equal(value, weights[name])]
            after = float(model(ids).logits[0, -1].softmax(-1)[cello])
        assert changed == ["transformer.h.2.mlp.c_proj.weight"]
        assert after == pytest.approx(face_edit.probabilities[1], abs=1e-5)
        assert face_edit.next_tokens(SENTENCE).iloc[0].to_dict() == {
            "token": " cello",
            "probability": pytest.approx(after),
        }
        assert all(torch.equal(value, weights[name]) for name, value in face_lm.model.state_dict().items())

    def test_probabilities_of_several_tokens_are_those_of_the_metrics(self, face_lm: LoadedModel) -> None:
        """exp(-NLL), with the NLL a mean over the target's tokens."""
        found = romexp.edit(face_lm, PROMPT, subject=SUBJECT, target="cello in Oslo", method="ft")
        ids = face_lm.tokenizer(f"{SENTENCE} cello in Oslo", return_tensors="pt")["input_ids"]
        start = len(face_lm.tokenizer(SENTENCE)["input_ids"])
        with torch.no_grad():
            log_p = face_lm.model(ids).logits[0].log_softmax(-1)
        nlls = [-float(log_p[i - 1, ids[0, i]]) for i in range(start, ids.shape[1])]
        assert len(nlls) > 1
        assert found.probabilities[0] == pytest.approx(math.exp(-sum(nlls) / len(nlls)), rel=1e-3)

    def test_an_edit_is_never_added_twice(self, face_lm: LoadedModel, face_edit: FactEdit) -> None:
        with face_edit.applied(), pytest.raises(ValueError, match="hold an edit already"):
            face_edit.generate(SENTENCE, 1)
        with face_edit.applied():
            assert face_lm.generate(REWORDED, 1).endswith(" cello"), "the model itself may be asked"
        assert face_edit.generate(REWORDED, 1).endswith(" cello")

    def test_the_settings_for_the_model_are_those_of_the_command_line(
        self, face_lm: LoadedModel, face_edit: FactEdit
    ) -> None:
        with initialize_config_dir(config_dir=str(CONF), version_base="1.3"):
            cfg = compose("config", ["model=minifact", "editor=rome"])
        assert romexp.editor("rome", face_lm) == instantiate(cfg.editor)
        assert face_edit.diagnostics["layer"] == 2
        own = romexp.editor("rome")
        assert isinstance(own, Rome)
        assert own.layer is None, "the control: without a model the method has its own settings"

    @pytest.mark.parametrize("method", ["ft", "ft_l", "mend", "ke"])
    def test_other_methods_by_name(self, face_lm: LoadedModel, method: str) -> None:
        found = romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, method=method)
        assert found.probabilities[1] > 0.5
        assert repr(found).startswith(
            f"<{found.method} edit of minifact: 'Selus Dunwood plays the' → 'cello', P 0.006 →"
        )

    def test_knowledge_neurons_want_the_old_answer(self, face_lm: LoadedModel) -> None:
        with pytest.raises(RecordError, match="target_true is empty"):
            romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, method="kn")
        found = romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, target_true="piano", method="kn")
        assert found.delta.terms

    def test_an_editor_object(self, face_lm: LoadedModel) -> None:
        rome = romexp.editor("rome", face_lm, settings={"layer": 3, "mom2_adjustment": False})
        found = romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, method=rome)
        assert list(found.delta.terms) == ["transformer.h.3.mlp.c_proj.weight"]
        assert found.diagnostics["layer"] == 3

    def test_second_moments_from_everywhere(self, face_lm: LoadedModel, face_edit: FactEdit, tmp_path: Path) -> None:
        """The source changes u, so it must change the delta; and texts in a list are texts in a file."""
        lines = [f"{name} plays the piano. She was born in Oslo." for name in ("Anna", "Bob", "Marik Mirberg")] * 40
        lines += [face_lm.generate(f"{i}", 60, top_k=50, seed=i) for i in range(40)]
        (tmp_path / "texts.txt").write_text("\n\n".join(line.replace("\n", " ") for line in lines))
        deltas = [
            romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, covariance=source).delta
            for source in ("sampled", lines, tmp_path / "texts.txt", "minifact", None)
        ]
        (parameter,) = face_edit.delta.terms
        left = [delta.terms[parameter].left[:, 0] for delta in deltas]  # type: ignore[union-attr]
        own = face_edit.delta.terms[parameter].left[:, 0]  # type: ignore[union-attr]
        assert torch.equal(left[3], own)
        assert torch.equal(left[4], own)
        assert torch.nn.functional.cosine_similarity(left[0], own, dim=0) > 0.5, "the model's own texts are no noise"
        assert not torch.allclose(left[0], own, atol=1e-4)
        torch.testing.assert_close(left[1], left[2], atol=2e-3, rtol=0)

    def test_saved_and_loaded(self, face_lm: LoadedModel, face_edit: FactEdit, tmp_path: Path) -> None:
        file = face_edit.save(tmp_path / "cello.safetensors")
        for again in (romexp.load_edit(file), romexp.load_edit(file, face_lm)):
            assert again.request == face_edit.request
            assert again.generate(REWORDED, 5) == face_edit.generate(REWORDED, 5)
            assert repr(again) == repr(face_edit)

    def test_a_file_of_another_model_is_refused(
        self, face_edit: FactEdit, tmp_path: Path, tiny_gpt2: LanguageModel
    ) -> None:
        file = face_edit.save(tmp_path / "cello.safetensors")
        with pytest.raises(DataError, match="made for minifact"):
            romexp.load_edit(file, tiny_gpt2)
        face_edit.delta.save(tmp_path / "bare.safetensors")
        with pytest.raises(DataError, match="not the fact that it is about"):
            romexp.load_edit(tmp_path / "bare.safetensors")
        with pytest.raises(DataError, match="no delta file"):
            romexp.load_edit(tmp_path / "nothing.safetensors")

    def test_every_family(self, tiny_lm: LanguageModel, guard) -> None:  # type: ignore[no-untyped-def]
        """A model object of any family: the edit is what the editor gives, and the overlay is the edited weights."""
        guard(tiny_lm)
        lm = romexp.load(tiny_lm.model, tiny_lm.tokenizer)
        method = romexp.editor("ft", settings={"layer": 1, "num_steps": 10, "lr": 1e-2})
        found = romexp.edit(lm, "{} is located in", subject="The Eiffel Tower", target="Seattle", method=method)
        before, after = found.probabilities
        assert after > before
        texts = found.generate("Paris is", 8)
        with applied(lm, found.delta):
            assert lm.generate("Paris is", 8) == texts

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"prompt": "plays the"}, r"prompt: expected exactly one \{\} for the subject, found 0"),
            ({"prompt": "{} plays the {}"}, r"prompt: expected exactly one \{\} for the subject, found 2"),
            ({"prompt": ""}, "prompt is empty"),
            ({"prompt": 3}, "prompt: expected a text, got int"),
            ({"subject": " "}, "subject is empty"),
            ({"subject": None}, "subject: expected a text, got NoneType"),
            ({"target": ""}, "target is empty"),
            ({"target": ["cello"]}, "target: expected a text, got list"),
            ({"target_true": 3}, "target_true: expected a text, got int"),
            ({"method": "romee"}, r"method: there is no 'romee' \(did you mean 'rome'\?\)"),
            ({"method": 3}, "method: expected a name or an editor object, got int"),
            ({"covariance": "nowhere.npz"}, "there is no 'nowhere.npz'"),
            ({"covariance": ["a", 3]}, r"covariance\[1\]: expected a text, got int"),
        ],
    )
    def test_what_is_no_edit(self, face_lm: LoadedModel, changes: dict[str, object], message: str) -> None:
        arguments: dict[str, object] = {"prompt": PROMPT, "subject": SUBJECT, "target": TARGET} | changes
        with pytest.raises(ConfigError, match=message):
            romexp.edit(face_lm, arguments.pop("prompt"), **arguments)  # type: ignore[arg-type]

    def test_what_is_no_model(self) -> None:
        with pytest.raises(ConfigError, match=r"expected a model of romexp\.load, got str"):
            romexp.edit("minifact", PROMPT, subject=SUBJECT, target=TARGET)  # type: ignore[arg-type]

    def test_no_such_setting(self) -> None:
        with pytest.raises(ConfigError, match=r"method rome: there is no setting 'layr' \(there are .*layer,"):
            romexp.editor("rome", settings={"layr": 3})

    def test_a_fact_that_is_too_long(self, face_lm: LoadedModel) -> None:
        with pytest.raises(RecordError, match="sees 128 at once"):
            romexp.edit(face_lm, PROMPT, subject=SUBJECT * 100, target=TARGET)

    def test_white_space_around_what_is_given_does_not_count(self, face_lm: LoadedModel) -> None:
        method = romexp.editor("ft", settings={"num_steps": 1})
        made = romexp.edit(face_lm, f"{PROMPT} ", subject=f" {SUBJECT} ", target=f" {TARGET}\n", method=method)
        plain = romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, method=method)
        assert made.request == plain.request
        assert made.probabilities == plain.probabilities

    def test_the_models_own_answer_is_a_warning(self, face_lm: LoadedModel) -> None:
        with pytest.warns(UserWarning, match="'piano' is what minifact says after 'Selus Dunwood plays the' anyway"):
            romexp.edit(face_lm, PROMPT, subject=SUBJECT, target="piano", method="ft")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            romexp.edit(face_lm, PROMPT, subject=SUBJECT, target=TARGET, method="ft")
