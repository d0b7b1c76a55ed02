"""Annotation-free labelling of image collections (UMS-CoSOD): finds and segments what recurs in a group of images."""

__version__ = "0.1.0"
