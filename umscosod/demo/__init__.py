"""Demo pictures that may be redistributed: real objects on real backgrounds, with exact masks (torch-free)."""
