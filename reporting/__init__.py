"""Records of a run: metrics, CSV files, TensorBoard events, the terminal's line, pictures.

`metrics` declares every figure; `statistics` makes rows of them and `writers` writes the rows.
"""
