"""What the tests stand on: virtual time, a look for what a test left behind, and Markdown pages as tests."""
