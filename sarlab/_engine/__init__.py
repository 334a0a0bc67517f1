"""What makes the policy fast and its files safe. Nothing here changes a number."""
