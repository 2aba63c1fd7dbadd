"""Raw files → the types of `romexp.facts`, validated record by record
(docs/method.md §1). No model, no tokenizer here.
"""
