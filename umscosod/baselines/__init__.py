"""Baselines: methods of others, written anew from their papers, on the features that our own stages see.

Each turns a group's features into soft maps on the token grid in which 0.5 is the method's own decision; stage 3
refines them like any other maps.
"""
