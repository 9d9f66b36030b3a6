"""Analyses of latents, of trajectories and of what a start state decides."""
