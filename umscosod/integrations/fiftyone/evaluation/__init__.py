"""Evaluates by our measures in FiftyOne, and compares two evaluations."""
