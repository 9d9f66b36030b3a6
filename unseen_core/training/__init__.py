"""Training of what is shipped: the ``shapes32`` network and the ``features32`` extractor."""
