"""What the jobs of the graph do, and what they cost.

One module per job, so that editing one job reruns only that job.
"""
