"""Runs: which samples, which files, which fields, and the verbs that make them; resumable at any point."""
