"""Human evaluation of generated texts (the paper's Appendix J): questionnaire, answers, scores."""
