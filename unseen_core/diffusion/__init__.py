"""The frozen network and the deterministic trajectory, up and down."""
