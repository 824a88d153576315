"""What is made: one thin declaration per asset."""
