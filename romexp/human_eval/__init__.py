"""Human evaluation of generated texts: questionnaire, answers and scores (paper App. J, docs/method.md §6.3)."""
