"""Stage 1 (CM-SPLG): pseudo-labels from self-attention and masks that recur in a group (torch-free)."""
