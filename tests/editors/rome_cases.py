"""What tests of ROME as an editor share."""

from __future__ import annotations

from edit_cases import (
    TEMPLATES,
)

from romexp.editors.rome.editor import Rome

ROME = Rome(layer=1, context_templates=TEMPLATES, v_num_grad_steps=5)
