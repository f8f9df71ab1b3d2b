"""The simulators behind `environments`, which imports this package and not vice versa."""
