"""What tokens cost: prices of machines, GPU time that was paid for, and the tokens that it gave."""
