"""The same model in NumPy, every backward pass written by hand: the files mirror those of the package, name for name."""
