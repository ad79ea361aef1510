"""Networks that only judge or guide; their weights come from the user."""
