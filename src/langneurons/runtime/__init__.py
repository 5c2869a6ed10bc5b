"""What runs around a job: its log, progress, memory, GPUs, failures; it decides no result."""
