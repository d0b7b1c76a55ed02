"""Which images of an unsorted collection show the same kind of thing, and whether a given group is one."""
