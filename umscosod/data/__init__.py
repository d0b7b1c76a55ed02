"""Reads and writes groups, pictures and masks: all code that touches image files, without torch."""
