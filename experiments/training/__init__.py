"""Training by recipes: one loop for every task, method and machine."""
