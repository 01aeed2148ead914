"""Looking at runs: tables, panels, pages, comparisons."""
