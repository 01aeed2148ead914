"""From a ConfigDict to the checked, frozen config of a run."""
