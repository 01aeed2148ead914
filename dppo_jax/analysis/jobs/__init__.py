"""Many runs, each kept in a folder that its config and code name."""
