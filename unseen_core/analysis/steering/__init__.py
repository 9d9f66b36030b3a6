"""What a start state decides: colours, variations, runs cut short."""
