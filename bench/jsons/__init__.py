"""Servers that parse JSON, and answer with JSON, with text as str and as bytes."""
