"""One module a figure of the papers; `python -m experiments.figures` lists."""
