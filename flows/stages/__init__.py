"""The data flow, one file a stage: images, latents, prior, start states, new images, metrics."""
