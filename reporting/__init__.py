"""Records of a run: metrics, CSV files, TensorBoard events, the terminal's live line, pictures.

`metrics` declares every metric, `statistics` aggregates them into rows, and `writers` writes rows.
"""
