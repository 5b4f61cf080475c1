"""What a Director takes of a Ray cluster: the connection, its nodes, and the devices that are reserved there."""
