"""Renders templates to HTML pages that contain their style and scripts and make no network requests."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from romexp import __version__

BASE = Path(__file__).parent / "templates"
"""Folder of what all pages share: `base.html`, `base.css`, `base.js`."""


def render(
    template: Path, scripts: Sequence[str], *, styles: Sequence[str] = (), scripts_beside: bool = False, **values: Any
) -> str:
    """The page as one text. Values are escaped, and the page's content security policy allows no other script but, if
    wanted, those in files beside it.

    Args:
        template: file that extends `base.html`; its style sheet has the same stem and comes after `base.css`.
        scripts: names of files beside the template, which come in this order after `base.js`.
        styles: names of style sheets beside the template, which come after its own.
        scripts_beside: allow scripts from where the page is: its folder on a disk, or its server.
        values: variables of the template.
    """
    folder = template.parent
    style = _read(BASE / "base.css") + "".join(
        _read(file) for file in (template.with_suffix(".css"), *(folder / name for name in styles))
    )
    script = _read(BASE / "base.js") + "".join(_read(folder / name) for name in scripts)
    environment = Environment(
        loader=FileSystemLoader([folder, BASE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    return environment.get_template(template.name).render(
        style=Markup(style),
        style_hash=_hash(style),
        script=Markup(script),
        script_hash=_hash(script),
        # In a page that was opened from a disk, not every browser takes 'self' to mean files beside it.
        more_scripts=" 'self' file:" if scripts_beside else "",
        version=__version__,
        **values,
    )


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """The text's hash, written as in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
