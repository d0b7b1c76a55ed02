"""Makes resumable runs: their samples, files, fields, and the functions that make them."""
