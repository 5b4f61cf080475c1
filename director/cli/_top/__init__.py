"""`director top`: finds an app's socket, keeps up with its frames, and draws them."""
