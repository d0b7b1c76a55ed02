"""One file per operator: form, one call, output."""
