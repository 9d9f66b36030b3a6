"""Readers of what stages wrote."""
