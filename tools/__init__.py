"""Builds, checks and tests what is published. setup.py takes its commands from here."""
