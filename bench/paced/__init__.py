"""How long messages take that are sent at a fixed rate."""
