"""Storms of opening handshakes."""
