"""How near generated images are to real ones, and how new."""
