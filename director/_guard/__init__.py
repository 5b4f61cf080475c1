"""What `director.guard` is made of: who watches the event loop, who looks at calls, and how a line is named."""
