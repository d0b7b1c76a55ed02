"""The published or plain form of what the library computes by a shorter way: what benchmarks compare with."""
