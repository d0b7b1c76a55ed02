"""How far a mask can be trusted, whether a group shares an object and whether an image has it. Free of torch."""
