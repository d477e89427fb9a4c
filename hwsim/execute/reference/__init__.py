"""The definition of every integer operation, in plain NumPy: what a kernel must equal, to the last code."""
