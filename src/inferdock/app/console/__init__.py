"""What the console's page is told and may ask for: live figures, records, commands; of this machine or of a cluster."""
