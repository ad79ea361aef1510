"""Weight files of any program as descriptions of the arrays in them; nothing in a file is run."""
