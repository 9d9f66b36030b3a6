"""The pipeline: thin stages over `unseen_core`, run by DVC, recorded by Prefect and MLflow."""

import os

__all__: list[str] = []

# Set before prefect, dvc or mlflow can be imported; what the user exports wins.
for _name, _value in {
    "DO_NOT_TRACK": "true",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A missing server is an error, not a private server for each process (14-22 s each).
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "unseen",
}.items():
    os.environ.setdefault(_name, _value)
