"""Imports data sets and predictions, and exports masks."""
