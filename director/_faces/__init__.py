"""Ways to give a Director work beside `submit` and `run`, each made of jobs and nothing else."""
