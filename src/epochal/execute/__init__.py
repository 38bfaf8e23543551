"""Doing what a plan says: threads, buffers, windows, piles."""
