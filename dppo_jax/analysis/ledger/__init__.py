"""Ledger of a run: replay, tables, plots and an HTML page."""
