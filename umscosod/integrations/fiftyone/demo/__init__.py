"""Makes the demo's data set, and opens the App on it."""
