//! Nothing: the tests of this package are the point.
