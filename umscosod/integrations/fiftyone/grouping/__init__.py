"""Writes groups into a field: from known values, or found in the pictures."""
