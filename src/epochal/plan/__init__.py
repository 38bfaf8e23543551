"""What to read, in which strategy: pure functions of order, layout, budget and machine."""
