"""Hosts: the only room of the library that imports FiftyOne."""
