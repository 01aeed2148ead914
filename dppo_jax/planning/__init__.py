"""Before a run: checks, memory, mesh, and programs compiled ahead of time."""
