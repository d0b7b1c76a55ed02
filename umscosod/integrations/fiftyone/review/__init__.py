"""What a person decides about masks, the least certain first."""
