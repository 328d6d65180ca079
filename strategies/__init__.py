"""What the server does with replies: pure maths (reducers, detection) under thin Flower strategies."""
