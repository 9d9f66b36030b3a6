"""What the stages ``trajectory`` and ``steer`` are made of: runs, tables, studies and plots."""
