"""Tables, pictures and written findings, made of the metrics."""
