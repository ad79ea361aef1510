"""What `python -m jseg gpu_check` runs in child processes: parity with the CPU, times and memory;
needs Jittor and NumPy only.
"""
