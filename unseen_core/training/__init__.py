"""Training of what is shipped: small networks of one domain."""
