"""The pipeline as scheduled Prefect flows."""
