"""`director top`: finds an app's socket, reads its frames, and draws them."""
