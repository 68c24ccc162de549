"""Ways to take many training steps in a call, with the results of plain steps."""
