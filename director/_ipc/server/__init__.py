"""What an application and its server process send each other, and count together."""
