"""Studies: recipes, plans, trials, and the ledger that remembers what is done."""
