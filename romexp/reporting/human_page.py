"""The questionnaire of a human evaluation as one HTML file that asks the network for nothing (paper App. J)."""

from __future__ import annotations

from romexp.reporting.html import render
from romexp.reporting.human_items import Questionnaire


def questionnaire_page(questionnaire: Questionnaire) -> str:
    """The page's text. It holds statements and texts, and nothing that says which system wrote which.

    The questions are the paper's: rank for consistency with the counterfactual, rank for fluency. The wording is ours.
    """
    return render(
        "questionnaire.html",
        ("questionnaire.js",),
        title="Comparing texts",
        data=questionnaire.blind(),
        per_participant=len(questionnaire.plan[0]),
        systems=len(questionnaire.items[0].texts),
    )
