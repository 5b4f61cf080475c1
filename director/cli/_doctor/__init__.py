"""`director doctor`: facts are gathered, and rules that know no machine turn them into findings."""
