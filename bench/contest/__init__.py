"""Granian's published contest: everybody to everybody."""
