"""The choice of a layer, and the editor that does nothing."""

from __future__ import annotations

import pytest
from edit_cases import REQUESTS, no_moment

from romexp.editors.base import Resources, pick_layer
from romexp.editors.none import NoEdit
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel


@pytest.mark.parametrize(
    ("layer", "fraction", "expected"),
    [(None, 0.0, 0), (None, 0.35, 1), (None, 0.7, 3), (0, 0.9, 0), (3, 0.0, 3)],
)
def test_a_layer_or_a_fraction_of_the_depth(
    tiny_gpt2: LanguageModel, layer: int | None, fraction: float, expected: int
) -> None:
    assert pick_layer(tiny_gpt2, layer=layer, fraction=fraction) == expected


@pytest.mark.parametrize(("layer", "fraction", "shown"), [(4, 0.0, 4), (-1, 0.0, -1), (None, 1.0, 4)])
def test_there_must_be_such_a_layer(tiny_gpt2: LanguageModel, layer: int | None, fraction: float, shown: int) -> None:
    with pytest.raises(ConfigError, match=rf"editor\.layer: {shown} is outside 0…3"):
        pick_layer(tiny_gpt2, layer=layer, fraction=fraction)


def test_a_word_is_no_layer(tiny_gpt2: LanguageModel) -> None:
    """`traced` is replaced by a number before an editor is called."""
    with pytest.raises(ConfigError, match=r"editor\.layer: 'traced' is not a number of a layer"):
        pick_layer(tiny_gpt2, layer="traced", fraction=0.5)


def test_no_edit_is_an_empty_delta_a_request(tiny_gpt2: LanguageModel) -> None:
    edits = NoEdit()(tiny_gpt2, REQUESTS, resources=Resources(second_moment=no_moment))
    assert len(edits) == len(REQUESTS)
    assert all(edit.delta.terms == {} for edit in edits)
