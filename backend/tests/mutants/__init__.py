"""Guards, each with the test that must fail without it: a committed list, and the program that checks it."""
