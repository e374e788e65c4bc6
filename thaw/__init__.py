"""What the stages call. It imports none of them."""
