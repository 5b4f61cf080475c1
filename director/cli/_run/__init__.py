"""The parts of `director run`, each a file: target, inputs, feed, records, writer, flow, tally, progress, halt."""
