"""Functions of this package beside what the authors' own code returned."""
