"""The page of results as a file: everything inside, everything escaped, the same bytes again."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from page_runs_made_up import (
    ASKED,
    EVIL,
    TABLE,
    change_rows,
    studies,
    write_editors,
    write_everything,
    write_sweep,
    write_trace,
)
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from report_runs import write_run

from romexp.analysis.shared_cases import on_shared_cases
from romexp.reporting.page.cases import MOST_TEXTS, case_data, different_prompts
from romexp.reporting.page.render import TEMPLATE, write_page
from romexp.results.find import find_runs


def page_of(root: Path, path: Path, **more: Any) -> str:
    runs = find_runs([root]).runs
    others = [run for run in runs if run.task != "edit"]
    return write_page(studies(root), [TABLE], [], path, others=others, **more).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("everything")
    write_everything(root)
    return root


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return page_of(folder, folder / "page.html")


def embedded(page: str) -> list[dict[str, Any]]:
    """The data of the page's script."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def text_of(page: str) -> str:
    """What is written on it, without its scripts and style."""
    bare = re.sub(r"<(script|style).*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", bare)).split())


class TestSelfContained:
    def test_refers_to_nothing_outside(self, page: str) -> None:
        addresses = re.findall(
            r"""(?:src|href|action|srcset|data|poster)\s*=\s*["']?([^"'\s>]+)""",
            re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL),
        )
        assert addresses
        assert {address[:5] if address.startswith("data:") else address[:1] for address in addresses} == {"#", "data:"}
        assert not re.search(r"url\(|@import|https?:|//[a-z]+\.", page.split("<body>")[0])
        assert not re.search(r"fetch\(|XMLHttpRequest|import\(|innerHTML|eval\(|https?:", page)

    def test_the_policy_allows_this_script_and_style_alone(self, page: str) -> None:
        (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
        policy = html.unescape(policy)
        assert policy.startswith("default-src 'none'; img-src data:;")
        for tag, name in (("<script>", "script"), ("<style>", "style")):
            inside = page.split(tag)[1].split(f"</{name}>")[0]
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"{name}-src 'sha256-{digest}'" in policy
        assert not re.search(
            r"<[^>]+\sstyle=|\son\w+=", page.split("<body>")[1].split('<script type="application/json"')[0]
        )

    def test_is_byte_identical_when_repeated(self, folder: Path, page: str) -> None:
        assert page_of(folder, folder / "again.html") == page
        assert page_of(folder, folder / "other.html", problems=["something else"]) != page

    def test_scripts_cannot_end_their_element(self) -> None:
        for script in TEMPLATE.parent.glob("*.js"):
            assert "</script" not in script.read_text(encoding="utf-8")
        for style in TEMPLATE.parent.glob("*.css"):
            assert "</style" not in style.read_text(encoding="utf-8")


class TestEscaping:
    def test_results_are_text(self, page: str) -> None:
        assert EVIL not in page
        assert "<b>prompt</b>" not in page
        assert "does not occur in <b>prompt</b>" in text_of(page).replace("&lt;", "<")
        assert page.count("<script") == 2
        assert page.count("</script>") == 2

    def test_names_in_attributes_are_text(self, tmp_path: Path) -> None:
        label = '"><script>x</script>'
        write_run(tmp_path / "r", range(1), manifest={"editor_label": label})
        page = page_of(tmp_path, tmp_path / "p.html")
        assert page.count("<script") == 2
        names = {json.loads(html.unescape(found))[0] for found in re.findall(r'data-editors="(\[.+?\])"', page)}
        assert names == {label, "ROME", "KE"}  # and those of the made-up table

    def test_and_arrive_whole(self, page: str) -> None:
        """The control: what is escaped is still there."""
        zsre = next(study for study in embedded(page) if study["kind"] == "zsre")
        assert zsre["cases"][1]["subject"] == EVIL


class TestContent:
    def test_tables_hold_the_means_of_the_studies(self, folder: Path, page: str) -> None:
        study = on_shared_cases(next(s for s in studies(folder) if len(s.entries) == 2))
        shown = text_of(page)
        assert "compared on the 3 cases that these editors share; left out: 1 more of FT" in shown
        for entry in study.entries:
            assert f"{entry.metrics['EM']['mean']:.1f} ({entry.metrics['EM']['half_width']:.1f})" in shown
        assert f'data-value="{study.entries[0].metrics["EM"]["mean"]}"' in page

    def test_half_done_runs_say_so(self, page: str) -> None:
        assert ">3 of 4</td>" in page
        assert "(running)</a>" in page

    def test_every_row_links_to_a_run_that_is_there(self, page: str) -> None:
        links = set(re.findall(r'href="#(run-[^"]+)"', page))
        assert len(links) == 2 + 6 + 1
        assert links <= set(re.findall(r'<details id="(run-[^"]+)"', page))

    def test_a_run_says_where_it_comes_from(self, page: str) -> None:
        shown = text_of(page)
        assert "romexp model=minifact dataset=zsre editor=rome" in shown
        assert "case 9, set aside by the editor: subject does not occur in" in shown
        assert "Data sha256 d" in shown

    def test_the_reports_tables_keep_headings_marks_and_commands(self, page: str) -> None:
        assert '<td colspan="2">Efficacy</td>' in page
        assert '<td class="num best" data-value="99.0">99.0 (0.3)<span class="unseen"> (highest)</span></td>' in page
        shown = text_of(page)
        assert "7,490 of 7,500 cases" in shown
        assert "romexp model=gpt2-xl" in shown
        assert '<details id="table-0-box" open>' in page

    def test_figures_of_other_tasks_are_shown(self, page: str) -> None:
        assert 'alt="trace of minifact, known: average lines"' in page
        assert '<details id="run-t"' in page

    def test_figures_keep_caption_size_and_look(self, folder: Path, tmp_path: Path) -> None:
        note = PngInfo()
        note.add_text("Description", "A <caption> of its own.")
        Image.new("RGB", (1600, 800), "#0072b2").save(tmp_path / "x.png", pnginfo=note)
        (tmp_path / "x.pdf").write_bytes(b"not shown")
        text = write_page([], [], [tmp_path / "x.pdf", tmp_path / "x.png"], tmp_path / "p.html").read_text()
        assert text.count("<img") == 1
        assert 'alt="A &lt;caption&gt; of its own."' in text
        assert 'width="960" height="480"' in text
        (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
        (tmp_path / "y.png").write_bytes(base64.b64decode(data))
        with Image.open(tmp_path / "y.png") as image:
            assert image.size == (1600, 800)
            assert image.convert("RGB").getpixel((7, 7)) == (0x00, 0x72, 0xB2)

    def test_problems_are_named(self, tmp_path: Path) -> None:
        text = write_page([], [], [], tmp_path / "p.html", problems=["a/manifest.json: not <JSON>"]).read_text()
        assert "a/manifest.json: not &lt;JSON&gt;" in text

    @pytest.mark.parametrize("content", [b"", b"garbage", b"\x89PNG\r\n\x1a\n" + b"x" * 40, "half"])
    def test_a_damaged_picture_is_named(self, tmp_path: Path, content: bytes | str) -> None:
        write_trace(tmp_path / "trace")
        file = tmp_path / "trace" / "figures" / "average_lines.png"
        file.write_bytes(file.read_bytes()[:100] if isinstance(content, str) else content)
        page = page_of(tmp_path, tmp_path / "page.html")
        assert "average_lines.png: not a picture" in text_of(page)
        assert "<img" not in page

    def test_nothing_at_all_is_said_clearly(self, tmp_path: Path) -> None:
        text = write_page([], [], [], tmp_path / "p.html").read_text(encoding="utf-8")
        assert "Not one run with a finished case was found." in text
        assert "<table" not in text
        assert 'id="data"' not in text


class TestCases:
    def test_probabilities_before_and_after(self, folder: Path, page: str) -> None:
        study = next(study for study in embedded(page) if study["entries"] == ["FT", "ROME"])
        case = study["cases"][0]
        assert case["post"][1]["rewrite"] == [[0.7788, 0.0302, 1]]
        assert len(case["pre"]["neighborhood"]) == 10
        assert case["post"][1]["texts"] == ["The home of someone is a, said rome.", "He likes a, papas and bananas."]
        assert study["cases"][3]["post"][0] is not None
        assert study["cases"][3]["post"][1] is None

    def test_tiny_probabilities_are_not_zero_and_missing_ones_null(self, tmp_path: Path) -> None:
        write_run(tmp_path / "r", range(1))
        pairs = [[80.0, 90.0], [None, 0.5], [20.0, 0.5]]
        change_rows(tmp_path / "r", {0: {"post": {"paraphrase_prompts": pairs}}})
        (case,) = case_data(studies(tmp_path)[0], identifier="s0", most_cases=5)["cases"]
        assert case["post"][0]["paraphrase"] == [[1e-30, 1e-30, 1], [None, 0.6065, 0], [2.061e-09, 0.6065, -1]]

    def test_prompts_of_any_row_that_has_them(self, folder: Path, page: str) -> None:
        study = next(study for study in embedded(page) if study["entries"] == ["FT", "ROME"])
        case = study["cases"][0]
        assert case["prompts"] == {kind.removesuffix("_prompts"): ASKED[kind] for kind in list(ASKED)[:4]}
        assert case["text_prompts"] == ["The home of someone is", "He likes"]
        early = study["cases"][3]
        assert (early["prompts"], early["answers"], early["text_prompts"]) == ({}, [], [])
        assert early["post"][0]["texts"] == case["post"][0]["texts"]

    def test_prompts_tell_which_texts_are_of_one(self, tmp_path: Path) -> None:
        write_editors(tmp_path, n=1)
        texts = ["He is a poet.", "He is a pilot.", "He is a judge."]  # one beginning, two prompts
        for name in ("ft0", "rome0"):
            asked = {"generation_prompts": ["He", "He is a", "He"]}
            change_rows(tmp_path / name, {0: {"pre": {"text": texts}, "post": {"text": texts}, "prompts": asked}})
        (case,) = case_data(studies(tmp_path)[0], identifier="s0", most_cases=1)["cases"]
        assert case["post"][0]["texts"] == texts[:2]
        assert case["text_prompts"] == ["He", "He is a"]

    @pytest.mark.parametrize("broken", [None, "x", {"rewrite_prompts": "x"}, {"generation_prompts": ["one too few"]}])
    def test_prompts_that_are_none_are_passed_over(self, tmp_path: Path, broken: object) -> None:
        write_editors(tmp_path, n=1)
        change_rows(tmp_path / "ft0", {0: {"prompts": broken}})
        (case,) = case_data(studies(tmp_path)[0], identifier="s0", most_cases=1)["cases"]
        assert (case["prompts"], case["text_prompts"]) == ({}, [])
        assert len(case["post"][0]["texts"]) == 2

    def test_zsre_has_tokens(self, page: str) -> None:
        zsre = next(study for study in embedded(page) if study["kind"] == "zsre")
        assert set(zsre["cases"][0]["pre"]) == {"rewrite", "paraphrase", "neighborhood"}
        assert set(zsre["cases"][0]["pre"]["neighborhood"]) <= {0, 1}

    def test_the_editor_that_does_nothing_is_the_unedited_model(self, tmp_path: Path) -> None:
        write_editors(tmp_path, editors={"none": 0.0, "rome": 3.0})
        (study,) = studies(tmp_path)
        data = case_data(study, identifier="s0", most_cases=9)
        assert data["entries"] == ["ROME"]
        text = write_page([study], [], [], tmp_path / "p.html").read_text()
        row = text.split('<th scope="row">none</th>')[1].split("</tr>")[0]
        assert "failure" not in row  # it fails at nothing
        assert "#run-none0" in row
        (tmp_path / "rome0" / "cases.jsonl").unlink()
        data = case_data(studies(tmp_path)[0], identifier="s0", most_cases=9)
        assert (data["entries"], len(data["cases"])) == ([], 4)

    def test_a_page_holds_so_many_cases_and_says_of_how_many(self, tmp_path: Path) -> None:
        write_editors(tmp_path, n=6)
        (study,) = embedded(write_page(studies(tmp_path), [], [], tmp_path / "p.html", most_cases=2).read_text())
        assert [case["id"] for case in study["cases"]] == [0, 1]
        assert study["total"] == 6

    def test_large_sweeps_hold_fewer_cases(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_sweep(tmp_path)
        monkeypatch.setattr("romexp.reporting.page.cases.MOST_SIDES", 14)
        data = case_data(studies(tmp_path)[0], identifier="s0", most_cases=100)
        assert len(data["cases"]) == 2

    def test_texts_are_of_different_prompts(self, tmp_path: Path) -> None:
        write_editors(tmp_path, n=1)
        texts = [f"{word} is where it began, once more." for word in "AABBCCDD"]
        for name in ("ft0", "rome0"):
            change_rows(tmp_path / name, {0: {"pre": {"text": texts}, "post": {"text": texts}}})
        (case,) = case_data(studies(tmp_path)[0], identifier="s0", most_cases=1)["cases"]
        assert [text[0] for text in case["post"][0]["texts"]] == ["A", "B", "C"][:MOST_TEXTS]

    def test_the_first_text_of_each_prompt(self) -> None:
        """By the prompts, or by the texts' first words where there is not one prompt a text."""
        texts = ["He is a poet.", "He is a pilot.", "She is a judge."]
        assert different_prompts(texts, ["He", "He is a", "He"]) == [0, 1]
        assert different_prompts(texts, ["He", "He"]) == different_prompts(texts, []) == [0, 1, 2]
        assert different_prompts(["He is a poet and", "He is a poet in", "She"], []) == [0, 2]
        assert different_prompts([], []) == []
