"""What `director.timeline` is made of: the story of a run, and its two forms, a trace and a page."""
