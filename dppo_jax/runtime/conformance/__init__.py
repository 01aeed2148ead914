"""Our functions beside what the authors' own code returned."""
