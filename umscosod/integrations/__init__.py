"""Connects the library to host applications: the only package of it that imports FiftyOne."""
