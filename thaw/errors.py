"""What a user can put right, told in one line."""


class InputError(ValueError):
    """Wrong parameters, data or weights; its text is all the user sees."""
