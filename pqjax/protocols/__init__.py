"""Two-party protocols on shares. Each stands next to the function that prices it."""
