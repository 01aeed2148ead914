"""Many configs from one, their runs, what came of them, and runs compared."""
