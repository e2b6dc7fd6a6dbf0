"""The stage that asks every picture whether the pose and the tools lie where it shows them."""
