"""What the server looks at after each round and at the end of a cell, one module a task."""
