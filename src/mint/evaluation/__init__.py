"""Evaluation: rankings, metrics with intervals, baselines, result files, tables and the report."""
