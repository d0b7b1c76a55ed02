"""Evaluation by our measures in FiftyOne's own terms, and the comparison of two."""
