"""How a stage runs: its parts, its batch, the cores it uses, how it resumes."""
