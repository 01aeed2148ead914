"""The ledger of a run, replayed, tabulated and shown as a page."""
