"""Pure mathematics: one equation a function, tables of rows."""
