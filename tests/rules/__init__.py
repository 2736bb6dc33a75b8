"""The rules of docs/streams.md, one by one: each test is named after the rule it proves."""
