"""What this machine offers Jittor, and what has to be in place before Jittor is imported."""
