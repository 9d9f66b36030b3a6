"""MLflow: a mirror of the metrics files."""
