"""How many blocks to thaw, found by a race of short trainings."""
