"""Results files: what they hold, how they are compared, and the tables drawn from them."""
