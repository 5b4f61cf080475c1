"""What it costs that several application processes have one Director: experiments of `benchmarks.theory`."""
