"""The ledger: what was recorded of every token, and its files."""
