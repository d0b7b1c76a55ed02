"""Every method on every data set, refined and scored alike: tables, and the pictures where methods disagree."""
