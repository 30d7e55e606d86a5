"""Decoding of sounds."""
