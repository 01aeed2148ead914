"""Everything with effects: files, processes, clocks, configuration."""
