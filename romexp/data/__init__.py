"""Raw files → the types of `romexp.facts`, validated record by record (SPEC §1). No model, no tokenizer here."""
