"""Durable storage: the port that the rooms above use, and its engines."""
