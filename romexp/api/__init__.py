"""What a notebook types: load a model, edit it, trace it, measure an edit. No algorithm here.

`import romexp` offers these functions by their names; objects that they return print and plot themselves. Mistakes
raise an error of `romexp.errors` that says what was expected.
"""
