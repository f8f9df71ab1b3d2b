"""What a checkpoint is worth: it plays whole games, and its scores are set beside others.

From the bottom up: scores, protocols, records, play; `modes` is what a person asks for.
"""
