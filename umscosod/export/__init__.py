"""Results out: PNG masks and maps, the report, and the contact sheet."""
