"""Commands on a user's own folder of images."""
