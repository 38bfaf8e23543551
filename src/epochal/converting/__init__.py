"""From any store or input to any flavour: convert, shuffle, verify."""
