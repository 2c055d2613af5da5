"""What the terminal and a notebook show, as rich renderables."""
