"""Scripts that a bare interpreter runs, to ask CUDA in a process of its own."""
