"""Stage 2, training of the network's head on pseudo-labels: sampler, loop, checkpoints."""
