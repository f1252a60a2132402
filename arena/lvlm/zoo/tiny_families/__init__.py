"""What a trained tiny model of each family is made of: one module a family."""
