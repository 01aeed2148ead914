"""Analysis of runs: tables, panels, pages, comparisons."""
