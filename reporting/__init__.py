"""Rows of metrics become a terminal line, CSV files, TensorBoard events, a record and a picture.

From the bottom up: statistics, csv_files, events, terminal, run_record, curves, writers.
"""
