"""What a transfer and a step cost."""
