"""What a model must decode for before a setting can be chosen."""
