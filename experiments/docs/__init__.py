"""The documentation: its generated tables, its pages, its checks."""
