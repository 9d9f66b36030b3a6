"""Synthesis of images of a domain that a frozen diffusion model has never seen."""
