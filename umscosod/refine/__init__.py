"""Stage 3, RRBE: adaptive threshold, region filter, DenseCRF (eq. 6-8). Free of torch."""
