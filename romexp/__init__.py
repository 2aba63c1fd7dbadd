"""romexp: locate and edit factual associations in language models.

```python
import romexp

lm = romexp.load("minifact")
edit = romexp.edit(lm, "{} plays the", subject="Selus Dunwood", target="cello")
edit.generate("The instrument of Selus Dunwood is")
```

`load`, `edit`, `load_edit`, `editor`, `trace`, `dataset` and `evaluate` are explained in `romexp.api`. They are
imported when they are first used: `import romexp` alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_FACE = {
    "load": "models",
    "edit": "edits",
    "load_edit": "edits",
    "editor": "methods",
    "trace": "traces",
    "dataset": "datasets",
    "evaluate": "evaluations",
}
"""Modules of `romexp.api` by the names that stand here; `__init__.pyi` says the same to type checkers."""


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'romexp' has no attribute {name!r}")
    return getattr(importlib.import_module(f"romexp.api.{_FACE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_FACE])
