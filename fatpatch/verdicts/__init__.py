"""What a file will do on a given GPU with a given driver: load rules, stubs, host dispatch, remedies."""
