"""What a command may write where, and whose results a folder holds."""
