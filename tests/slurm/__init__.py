"""Tests that need a real SLURM on this machine."""
