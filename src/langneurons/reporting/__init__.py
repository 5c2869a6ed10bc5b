"""Tables, figures, claims and the page of results."""
