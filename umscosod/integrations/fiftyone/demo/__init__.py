"""The demo's data set, and the App on it."""
