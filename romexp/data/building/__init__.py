"""Builds data sets in CounterFact's schema from triples and templates (the paper's Appendix D; docs/data.md)."""
