"""The release gate: a policy, the rules that hold files against it, and what they find."""
