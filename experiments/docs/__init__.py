"""Documentation: generated tables, pages and checks."""
