"""The ledger: a record of every token of a step, and its files."""
