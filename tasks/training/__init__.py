"""Training backends: what a job is, and who can run one."""
