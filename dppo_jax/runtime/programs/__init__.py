"""The parts of a run and the programs compiled from them."""
