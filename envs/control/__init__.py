"""Classic control, fully and partially observed."""
