"""Learning: a batch of unrolls becomes one V-trace update of the weights."""
