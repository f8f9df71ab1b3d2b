"""Predicts the traffic and the throughput of a planned cluster."""
