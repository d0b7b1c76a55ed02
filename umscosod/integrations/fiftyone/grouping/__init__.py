"""Groups as a field: from what is there, or found in the pictures."""
