"""Writing files whole, or not at all: batched, compressed on all threads, safe from kills."""
