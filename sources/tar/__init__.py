"""Images in tars, read in place: headers, members, and the source made of them."""
