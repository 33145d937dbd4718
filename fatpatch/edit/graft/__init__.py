"""Images from outside put into a linked binary."""
