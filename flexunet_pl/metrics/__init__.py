"""What a score is: for an epoch, a case, a table, with intervals over patients."""
