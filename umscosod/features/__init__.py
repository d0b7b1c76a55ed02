"""Stage 0: frozen features through one protocol, each image encoded once."""
