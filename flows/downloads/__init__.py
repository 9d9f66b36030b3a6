"""What comes from the network: files and hub repositories, resumed and checked."""
