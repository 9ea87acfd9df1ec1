"""How bytes move: each protocol fills the missing ranges of a partial."""
