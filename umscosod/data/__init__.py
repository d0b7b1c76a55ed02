"""Groups, pictures and masks: everything that touches image files (torch-free)."""
