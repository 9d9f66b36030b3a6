"""Prefect: what records a stage, and spreads its parts over workers."""
