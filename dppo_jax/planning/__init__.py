"""Before a run: checks, memory, meshes, and ahead-of-time compilation."""
