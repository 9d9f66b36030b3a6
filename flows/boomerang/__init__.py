"""Boomerang's applications: copies of a user's folder, their measures, tables and plots."""
