"""One script per table, figure or bench; each writes JSON and makes its tables from it."""
