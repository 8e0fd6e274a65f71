"""How well a detector does on labelled streams, beside others, judged causally; pure but for the suites' readers."""
