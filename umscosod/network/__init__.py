"""Stage 2, the UMS network: AFMM, CFMM, FRAM and decoder on frozen tokens (paper eq. 2-5, 9, 10)."""
