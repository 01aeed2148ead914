"""Jobs: many runs, each cached in a folder named by its config and code."""
