"""The networks of source `tinv`: one file a network, which holds one function of the same name."""
