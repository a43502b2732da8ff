"""Servers under load: how every benchmark of servers runs, and the load clients in C."""
