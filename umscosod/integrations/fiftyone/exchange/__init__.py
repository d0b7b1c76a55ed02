"""Data sets and predictions in, masks out."""
