"""What a report says of policies that write text: its numbers, tables, plots and sections."""
