"""DVC: the process, experiments, and parameters laid over params.yaml."""
