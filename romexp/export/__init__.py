"""Edits as files for other programs: a PEFT adapter, or a whole model as a Hugging Face folder."""
