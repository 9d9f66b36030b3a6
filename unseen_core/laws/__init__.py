"""Gaussian laws of images and latents, and the geometry of their samples."""
