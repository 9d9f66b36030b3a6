"""Downloads: files and hub repositories, resumed and checked."""
