"""The documentation site: every page and link is right, and pages load nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytest.importorskip("material", reason="the extra `docs` is not installed (make docs)")


def build(site: Path, config: Path = ROOT / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "-f", str(config), "-d", str(site)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip


def test_the_site_is_built_with_links_that_lead_somewhere(tmp_path: Path) -> None:
    done = build(tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {
        path.relative_to(tmp_path).as_posix(): path.read_text(encoding="utf-8") for path in tmp_path.rglob("*.html")
    }
    assert {"index.html", "method/index.html", "api/index.html", "changelog/index.html"} <= set(pages)
    assert "<math" in pages["method/index.html"]
    assert "$$" not in pages["method/index.html"]
    assert 'id="romexp.api.edits.edit"' in pages["api/index.html"]
    for name, page in pages.items():
        loaded = re.findall(
            r'<(?:script|img|iframe)[^>]*\ssrc="([^"]+)"|<link[^>]*rel="stylesheet"[^>]*href="([^"]+)"', page
        )
        assert not [url for pair in loaded for url in pair if "//" in url], name
        assert "<!-- test:" not in page, name


def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    """A control of the test before, with the same rules for links."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# A\n\n[nothing](#nowhere)\n")
    given = (ROOT / "mkdocs.yml").read_text()
    rules = re.search(r"^validation:\n(?:  .*\n)+", given, re.MULTILINE)
    assert rules is not None
    config = tmp_path / "mkdocs.yml"
    config.write_text(f"site_name: A\nstrict: true\n{rules[0]}")
    done = build(tmp_path / "site", config)
    assert done.returncode != 0
    assert "nowhere" in done.stderr
