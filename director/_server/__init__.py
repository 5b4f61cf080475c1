"""The server process, which has the devices of several application processes."""
