"""What runs at a site: the ClientApp and Flower ``NumPyClient`` subclasses, numpy in and numpy out."""
