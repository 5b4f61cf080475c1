"""What users bring (objects, numbers, keys, texts), asked in this one place and never trusted."""
