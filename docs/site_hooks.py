"""What mkdocs does besides: pages from files outside docs/, links as the site needs them, formulas without a script.

The same files are read in an editor and in a repository's browser, so links in them are paths of the repository. On the
site every page lies in one folder. A link to a file that is no page becomes plain text.
"""

from __future__ import annotations

import os
import re
from html import unescape
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "outputs/README.md": "outputs.md",
    "romexp/data/world/README.md": "world.md",
}
"""Pages from files outside docs/, by their paths in the repository."""
SOURCES = {page: source for source, page in PAGES.items()}
LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>[^)#\s:]*)(?P<anchor>#[^)\s]*)?\)")
COMMENT = re.compile(r"^<!--.*?-->\n", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
"""A block of code; splitting by it leaves the blocks at the odd places."""
FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose files lie outside docs/."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out comments, which are for the tests of the commands, and make links those of the site."""
    source = SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    parts = BLOCK.split(markdown)
    parts[::2] = [LINK.sub(lambda link: _link(link, source, files), COMMENT.sub("", text)) for text in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write formulas as MathML, which browsers draw by themselves."""
    return FORMULA.sub(
        lambda found: convert(unescape(found["tex"]), display="block" if found["tag"] == "div" else "inline"), html
    )


def _link(link: re.Match[str], source: str, files: Files) -> str:
    """The link as the site needs it; its text alone where it leads to a file that is no part of the site."""
    path, anchor = link["path"], link["anchor"] or ""
    if not path:
        return link[0]
    target = os.path.normpath(Path(source).parent / path)
    page = PAGES.get(target, target.removeprefix("docs/"))
    if files.get_file_from_path(page) is None:
        return link["text"]
    return f"{link['image']}[{link['text']}]({page}{anchor})"
